//! What only Windows guests have. Decisions and texts are in the crate `gilt-windows`; here they
//! meet a machine (docs/windows-guest-contract.md).

pub mod generalize;
pub mod install;
mod media;
pub mod proof;
pub mod provision;
mod remote;
mod restart;
pub mod update;

pub use restart::SHUT_DOWN;

use rand::RngExt as _;

/// A password that meets every policy of Windows: 28 characters, four kinds.
pub fn new_password() -> String {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    let body: String =
        (0..24).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    format!("{body}aZ7-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn passwords_differ_and_have_four_kinds() {
        let (one, two) = (super::new_password(), super::new_password());
        assert_ne!(one, two);
        assert_eq!(one.len(), 28);
        assert!(one.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    }
}
