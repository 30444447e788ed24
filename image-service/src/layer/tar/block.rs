//! The blocks of a tar, and their faults.

use crate::layer::Failure;

/// The size of a block, in bytes.
pub(crate) const BLOCK: usize = 512;

/// The refusal of a tar.
pub(super) fn broken(reason: &str) -> Failure {
    Failure::Rejected(format!("its tar is broken or over a limit: {reason}"))
}

/// The bytes that fill the last block of this much data.
pub(crate) fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if rest == 0 { 0 } else { BLOCK - rest }
}

/// A number of a PAX record, in decimal digits.
pub(super) fn decimal(text: &[u8]) -> Result<u64, Failure> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| broken("a PAX number is malformed"))
}
