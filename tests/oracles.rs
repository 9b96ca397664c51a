//! Build script of the crates whose tests compare with Microsoft's tables. Those are not gilt's to carry: they are read
//! from the folder GILT_ORACLES, or from ../shared/oracles beside the checkout. Where they are not, the tests show as ignored.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(oracles)");
    println!("cargo::rerun-if-env-changed=GILT_ORACLES");
    // Both crates lie two folders deep.
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracles");
    let folder = std::env::var_os("GILT_ORACLES").map_or(beside, Into::into);
    let tables = ["ps-cmdlet-params.tsv", "unattend-passes.tsv"].map(|name| folder.join(name));
    if tables.iter().all(|table| table.is_file()) {
        for table in &tables {
            println!("cargo::rerun-if-changed={}", table.display());
        }
        println!("cargo::rustc-cfg=oracles");
        println!("cargo::rustc-env=GILT_ORACLES_FOLDER={}", folder.display());
    } else {
        println!("cargo::rerun-if-changed=../../tests/oracles.rs");
    }
}
