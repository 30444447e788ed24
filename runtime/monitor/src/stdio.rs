//! The monitor's ends of a container's standard streams.
//!
//! Every output is read even if its bytes can't be logged or sent, so that no container ever blocks on a log or a
//! client.

use crate::log::{Line, Stream};
use crate::sys::{Result, file, tty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Standard input, output and error for a child.
pub(crate) type Ends = [OwnedFd; 3];

/// The device number of /dev/null.
pub(crate) const NULL_DEVICE: u64 = libc::makedev(1, 3);

/// Whether a client's descriptor may be a process's standard stream: a pipe or /dev/null, through which no path
/// leads.
pub(crate) fn is_stream(file: BorrowedFd<'_>) -> Result<bool> {
    let stat = file::fstat(file)?;
    Ok(stat.is(libc::S_IFIFO) || stat.is(libc::S_IFCHR) && stat.device == NULL_DEVICE)
}

/// One stream that the container writes.
#[derive(Debug)]
pub(crate) struct Output {
    file: OwnedFd,
    /// Standard output or standard error.
    pub(crate) stream: Stream,
    /// The beginning of a line that has not ended yet.
    pub(crate) line: Line,
}

/// The stream that the container reads.
#[derive(Debug)]
struct Input {
    file: OwnedFd,
    pending: Vec<u8>,
    closing: bool,
}

/// All streams of a container.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    outputs: Vec<Output>,
    input: Option<Input>,
    terminal: Option<OwnedFd>,
}

/// The result of a read of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// The number of bytes read.
    Bytes(usize),
    /// No bytes for now (`EAGAIN`).
    Nothing,
    /// The stream has ended.
    End,
}

impl Streams {
    /// Makes pipes; returns the child's ends of them. Without `stdin` its standard input is empty. `open_to_all`
    /// gives them mode 0666, so that a child in a user namespace can open them again by path (`/proc/self/fd/1`).
    pub(crate) fn pipes(stdin: bool, open_to_all: bool) -> Result<(Self, Ends)> {
        let (output, output_end) = file::pipe()?;
        let (error, error_end) = file::pipe()?;
        let mut streams = Self::default();
        for (file, stream) in [(output, Stream::Out), (error, Stream::Error)] {
            streams.add_output(file, stream)?;
        }
        let input_end = if stdin {
            let (end, input) = file::pipe()?;
            file::set_nonblocking(input.as_fd())?;
            streams.input = Some(Input { file: input, pending: Vec::new(), closing: false });
            end
        } else {
            file::duplicate(file::standard(0))?
        };
        let ends = [input_end, output_end, error_end];
        for end in ends.iter().skip(usize::from(!stdin)).filter(|_| open_to_all) {
            file::fchmod(end.as_fd(), 0o666)?;
        }
        Ok((streams, ends))
    }

    fn add_output(&mut self, file: OwnedFd, stream: Stream) -> Result<()> {
        file::set_nonblocking(file.as_fd())?;
        self.outputs.push(Output { file, stream, line: Line::default() });
        Ok(())
    }

    /// Takes the master of the container's terminal, which is output and, with `stdin`, input.
    pub(crate) fn take_terminal(&mut self, master: OwnedFd, stdin: bool) -> Result<()> {
        self.add_output(file::duplicate(master.as_fd())?, Stream::Out)?;
        if stdin {
            let file = file::duplicate(master.as_fd())?;
            self.input = Some(Input { file, pending: Vec::new(), closing: false });
        }
        self.terminal = Some(master);
        Ok(())
    }

    /// Sets the terminal's size; returns false if there is no terminal.
    pub(crate) fn resize(&self, width: u16, height: u16) -> Result<bool> {
        match &self.terminal {
            Some(terminal) => tty::resize(terminal.as_fd(), width, height).map(|()| true),
            None => Ok(false),
        }
    }

    /// Outputs that have not ended.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        self.outputs.iter().map(|output| (output.stream, output.file.as_fd()))
    }

    /// Whether every output has ended.
    pub(crate) fn ended(&self) -> bool {
        self.outputs.is_empty()
    }

    /// One output, unless it has ended.
    pub(crate) fn output(&mut self, stream: Stream) -> Option<&mut Output> {
        self.outputs.iter_mut().find(|output| output.stream == stream)
    }

    /// Removes an output that has ended.
    pub(crate) fn remove(&mut self, stream: Stream) -> Option<Output> {
        let at = self.outputs.iter().position(|output| output.stream == stream)?;
        Some(self.outputs.remove(at))
    }

    /// Closes everything.
    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }

    /// Whether more input can be taken now.
    pub(crate) fn takes_input(&self) -> bool {
        self.input.as_ref().is_none_or(|input| input.pending.is_empty())
    }

    /// The input to poll for writability, while bytes are pending.
    pub(crate) fn blocked_input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().filter(|input| !input.pending.is_empty()).map(|input| input.file.as_fd())
    }

    /// Writes bytes to the container's input, or queues them; drops them if the input is closed.
    pub(crate) fn give(&mut self, bytes: &[u8]) {
        if let Some(input) = self.input.as_mut().filter(|input| !input.closing) {
            input.pending.extend_from_slice(bytes);
        }
        self.flush_input();
    }

    /// Closes the input once pending bytes are written.
    pub(crate) fn end_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.closing = true;
        }
        self.flush_input();
    }

    /// Writes pending bytes, as many as the input takes.
    pub(crate) fn flush_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        while !input.pending.is_empty() {
            match file::write(input.file.as_fd(), &input.pending) {
                Ok(written) => drop(input.pending.drain(..written.min(input.pending.len()))),
                Err(error) if error.errno == libc::EAGAIN => return,
                // The container has closed its end.
                Err(_) => {
                    self.input = None;
                    return;
                }
            }
        }
        if input.closing {
            self.input = None;
        }
    }
}

impl Output {
    /// Reads once.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Read {
        match file::read(self.file.as_fd(), buffer) {
            Ok(0) => Read::End,
            Ok(length) => Read::Bytes(length),
            Err(error) if error.errno == libc::EAGAIN => Read::Nothing,
            // A terminal's master gives EIO once its last slave is closed.
            Err(_) => Read::End,
        }
    }
}
