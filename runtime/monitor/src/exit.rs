//! The end of a container, final in this order: wait status, kills for memory counted, streams drained, exit file
//! renamed into place, told.

use crate::attach;
use crate::connection::Role;
use crate::container::Phase;
use crate::log::Stream;
use crate::server::{Server, boot_time, real_time};
use crate::stdio::Read;
use slipway_monitor::exit_file;
use slipway_monitor::protocol::{Exit, PACKET, Reply};

const MILLISECOND: i64 = 1_000_000;
/// The longest pause between two looks at a cgroup whose processes keep the streams open.
const LONGEST: i64 = 1000 * MILLISECOND;
/// When to write an exit file again that could not be written.
const AGAIN: i64 = 200 * MILLISECOND;
/// Reads of one stream after the cgroup is empty: a pipe holds no more (1 MiB, `/proc/sys/fs/pipe-max-size`).
const LAST_READS: usize = 17;

impl Server {
    /// Reads an output once, into the log and to the clients.
    pub(crate) fn pump(&mut self, id: &str, stream: Stream) -> Read {
        let Some(container) = self.containers.get_mut(id) else { return Read::Nothing };
        let Some(output) = container.streams.output(stream) else { return Read::End };
        self.buffer.resize(PACKET, 0);
        self.used = true;
        let read = output.read(&mut self.buffer);
        match read {
            Read::Bytes(length) => {
                let bytes = self.buffer.get(..length).unwrap_or_default();
                container.log.append(stream, &mut output.line, bytes, real_time());
                attach::copy(&mut self.connections, id, stream, bytes);
            }
            Read::End => {
                if let Some(mut output) = container.streams.remove(stream) {
                    container.log.finish(stream, &mut output.line, real_time());
                }
            }
            Read::Nothing => {}
        }
        read
    }

    /// Notes the wait status of a container's first process.
    pub(crate) fn ended(&mut self, id: &str, wait_status: i32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let exit = Exit {
            wait_status,
            oom_kills: container.cgroup.oom_kills(),
            started_at: container.started_at,
            finished_at: real_time(),
            timed_out: container.timed_out,
        };
        if container.kill_rest {
            container.cgroup.kill();
        }
        container.phase = Phase::Draining { exit, look_at: boot_time(), pause: MILLISECOND };
        self.finish_if_drained(id);
    }

    /// Finishes a container whose streams have ended, or whose cgroup has and which holds no more output.
    pub(crate) fn finish_if_drained(&mut self, id: &str) {
        self.read_out(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        let Phase::Draining { exit, look_at, pause } = &mut container.phase else { return };
        if !container.streams.ended() && !container.cgroup.is_empty() {
            *look_at = boot_time().saturating_add(*pause);
            *pause = pause.saturating_mul(2).min(LONGEST);
            if container.kill_rest || container.timed_out {
                container.cgroup.kill();
            }
            return;
        }
        let exit = exit.clone();
        self.read_out(id);
        self.finish(id, exit);
    }

    /// Reads what the streams hold by now.
    fn read_out(&mut self, id: &str) {
        for stream in [Stream::Out, Stream::Error] {
            for _ in 0..LAST_READS {
                if !matches!(self.pump(id, stream), Read::Bytes(_)) {
                    break;
                }
            }
        }
    }

    fn finish(&mut self, id: &str, exit: Exit) {
        let Some(container) = self.containers.get_mut(id) else { return };
        for stream in [Stream::Out, Stream::Error] {
            if let Some(mut output) = container.streams.remove(stream) {
                container.log.finish(stream, &mut output.line, real_time());
            }
        }
        let dropped = container.log.dropped();
        container.streams.close();
        container.log = crate::log::Log::default();
        container.cgroup.close();
        container.phase = Phase::Exited(exit.clone());
        container.unfiled = Some((0, exit_file::format(id, &exit, dropped)));
        self.file_exit(id);
        let told = Reply::Exited { container: id.into(), exit };
        for connection in self.connections.values_mut() {
            let attached = matches!(&connection.role, Role::Attached { container, .. } if container == id);
            if connection.watching || attached {
                connection.send(&told, Vec::new());
            }
        }
    }

    /// Writes a container's exit file, and again later when that can't be: a daemon that lives is told all the same.
    pub(crate) fn file_exit(&mut self, id: &str) {
        let (Some(pod), Some(container)) = (&self.pod, self.containers.get_mut(id)) else { return };
        let Some((again, text)) = &mut container.unfiled else { return };
        if let Err(error) = pod.write(&exit_file::name(id), text) {
            if *again == 0 {
                crate::complain(&format!("container {id}: write its exit file: {error}; it is tried again"));
            }
            *again = boot_time().saturating_add(AGAIN);
            return;
        }
        pod.remove(&exit_file::stop_name(id));
        container.unfiled = None;
    }
}
