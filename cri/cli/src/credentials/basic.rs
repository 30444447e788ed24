//! The two texts of a user and password: `user:password`, and that in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};

/// `user:password`; the password may be absent.
pub(super) fn divided(text: &str) -> Result<(String, String)> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() {
        return Err(Error::Usage("the credentials have no user name".to_owned()));
    }
    Ok((user.to_owned(), password.to_owned()))
}

/// The text that is encoded.
pub(super) fn decoded(auth: &str) -> Result<String> {
    let bytes = STANDARD.decode(auth.trim()).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| Error::Usage("auth is not base64 of user:password".to_owned()))
}
