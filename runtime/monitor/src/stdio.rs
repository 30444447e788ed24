//! The monitor's ends of a container's standard streams.
//!
//! Every output is read whatever becomes of its bytes, so that no container ever waits for a log or a client.

use crate::log::{Line, Stream};
use crate::sys::{Result, file, tty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Standard input, output and error for a child.
pub(crate) type Ends = [OwnedFd; 3];

/// The device number of /dev/null.
pub(crate) const NULL_DEVICE: u64 = libc::makedev(1, 3);

/// Whether a client's descriptor can be a process's standard stream: a path through it leads nowhere.
pub(crate) fn is_stream(file: BorrowedFd<'_>) -> Result<bool> {
    let stat = file::fstat(file)?;
    Ok(stat.is(libc::S_IFIFO) || stat.is(libc::S_IFCHR) && stat.device == NULL_DEVICE)
}

/// One stream that the container writes.
#[derive(Debug)]
pub(crate) struct Output {
    file: OwnedFd,
    /// Which one.
    pub(crate) stream: Stream,
    /// What has come of a line that is not ended.
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

/// What a read of an output gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The stream has ended.
    End,
}

impl Streams {
    /// Pipes, and the child's ends of them. Without `stdin` its standard input is empty. With `open_to_all` the child
    /// may open them again by path, which it could not from inside a user namespace.
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

    /// Sets the terminal's size; false without one.
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

    /// One output, with the line it is in.
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

    /// The input to poll for room, while bytes wait for it.
    pub(crate) fn blocked_input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().filter(|input| !input.pending.is_empty()).map(|input| input.file.as_fd())
    }

    /// Gives bytes to the container; a stream that is closed drops them.
    pub(crate) fn give(&mut self, bytes: &[u8]) {
        if let Some(input) = self.input.as_mut().filter(|input| !input.closing) {
            input.pending.extend_from_slice(bytes);
        }
        self.flush_input();
    }

    /// Closes the input once what waits has gone.
    pub(crate) fn end_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.closing = true;
        }
        self.flush_input();
    }

    /// Writes what waits.
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
