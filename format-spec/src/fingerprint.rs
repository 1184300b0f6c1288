//! Fingerprints of a vendor's first root, made to be read over a telephone (SPEC.md, "Fingerprints").
//!
//! Eight groups of four hexadecimal digits, 128 bits in all, each group followed by a check letter
//! from `g` to `w`. A slip is found in its group without ever showing the right fingerprint.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, hex};

const GROUPS: usize = 8;

/// The first 128 bits of a digest, in groups with a check letter each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of a root document with this digest.
    #[must_use]
    pub fn of(digest: &Digest) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        Self(bytes)
    }

    /// Whether a root document with this digest is meant.
    ///
    /// # Errors
    ///
    /// [`FingerprintError::Other`] if not; it does not say what would have been right.
    pub fn check(&self, digest: &Digest) -> Result<(), FingerprintError> {
        if *self == Self::of(digest) { Ok(()) } else { Err(FingerprintError::Other) }
    }
}

/// Why a fingerprint is not accepted. Positions count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// Another number of groups.
    #[error("the fingerprint has {0} groups; there must be 8")]
    Groups(usize),
    /// A group that is no group.
    #[error("group {0} of the fingerprint is not four digits 0-9 a-f and a letter g-w")]
    Form(usize),
    /// A group whose letter does not fit its digits and place.
    #[error("group {0} of the fingerprint is mistyped: its check letter does not fit")]
    Check(usize),
    /// A well-formed fingerprint of something else.
    #[error("the fingerprint belongs to another root")]
    Other,
}

fn check_letter(group: usize, digits: &[u8]) -> char {
    let sum: u32 = digits
        .iter()
        .zip(2u32..)
        .map(|(digit, weight)| weight * char::from(*digit).to_digit(16).expect("a hexadecimal digit"))
        .sum();
    char::from(b'g' + ((sum + 7 * group as u32 + 1) % 17) as u8)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, pair) in self.0.chunks(2).enumerate() {
            let digits = hex(pair);
            let dash = if n == 0 { "" } else { "-" };
            write!(f, "{dash}{digits}{}", check_letter(n, digits.as_bytes()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.to_ascii_lowercase();
        let groups: Vec<&str> =
            text.split(|c: char| c == '-' || c == ':' || c.is_whitespace()).filter(|g| !g.is_empty()).collect();
        if groups.len() != GROUPS {
            return Err(FingerprintError::Groups(groups.len()));
        }
        let mut bytes = [0; 16];
        for (n, group) in groups.iter().enumerate() {
            let form = FingerprintError::Form(n + 1);
            let (digits, letter) = group.split_at_checked(4).ok_or_else(|| form.clone())?;
            let pair = crate::digest::from_hex(digits).ok_or_else(|| form.clone())?;
            if letter.len() != 1 || !matches!(letter.as_bytes()[0], b'g'..=b'w') {
                return Err(form);
            }
            if !letter.starts_with(check_letter(n, digits.as_bytes())) {
                return Err(FingerprintError::Check(n + 1));
            }
            bytes[n * 2..n * 2 + 2].copy_from_slice(&pair);
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_slip_is_located() {
        let right = Fingerprint::of(&Digest::of(b"root"));
        let text = right.to_string();
        assert_eq!(text.parse(), Ok(right));
        assert_eq!(text.to_uppercase().replace('-', " ").parse(), Ok(right));
        for (at, old) in text.char_indices().filter(|(_, c)| *c != '-') {
            for new in ('0'..='9').chain('a'..='z').filter(|c| *c != old) {
                let mut typed = text.clone();
                typed.replace_range(at..=at, &new.to_string());
                let group = at / 6 + 1;
                let error = typed.parse::<Fingerprint>().expect_err(&typed);
                assert!(
                    matches!(error, FingerprintError::Form(g) | FingerprintError::Check(g) if g == group),
                    "{typed}: {error}"
                );
            }
        }
        for at in (0..text.len() - 1).filter(|at| at % 6 < 3 && text.as_bytes()[*at] != text.as_bytes()[at + 1]) {
            let mut typed = text.clone().into_bytes();
            typed.swap(at, at + 1);
            let typed = String::from_utf8(typed).expect("ASCII");
            assert_eq!(typed.parse::<Fingerprint>(), Err(FingerprintError::Check(at / 6 + 1)), "{typed}");
        }
    }
}
