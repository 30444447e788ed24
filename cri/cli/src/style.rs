//! A dialect's manner of speaking: the form of tables and of errors.

/// The form in which results and errors are printed.
#[derive(Debug)]
pub(crate) struct Style {
    /// The program's name, with which each error begins.
    pub(crate) program: &'static str,
    /// The least width of a table's column, in characters.
    pub(crate) column_width: usize,
    /// The form of the error for a call that the server refused.
    pub(crate) refused_call: RefusedCall,
}

/// The form of the error for a call that the server refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedCall {
    /// The server's message, and the cause where the connection broke.
    Message,
    /// gRPC's code and the message, as Go's client prints them.
    CodeAndMessage,
}
