//! `empty_hive FILE`: an empty registry hive, by the regf crate, for hivexregedit to fill.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: empty_hive FILE")?;
    let bytes = regf::HiveBuilder::new_with_name("ROOT")?.to_bytes()?;
    std::fs::write(path, bytes)?;
    Ok(())
}
