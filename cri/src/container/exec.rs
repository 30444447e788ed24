//! ExecSync and ReopenContainerLog.

use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use slipway_proto::http2::MESSAGE_MAX;
use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{Exec, ExecOutput};

use crate::error::{Error, Result};
use crate::node::Node;

/// Bytes reserved in an answer for all but the outputs: the exit status, field lengths and the note about a cut.
const BESIDES: usize = 1024;

/// Runs a command to its end.
pub(crate) async fn exec_sync(
    node: &Arc<Node>,
    request: cri::ExecSyncRequest,
) -> Result<cri::ExecSyncResponse> {
    let container = node.containers.find_cri(&request.container_id)?;
    if request.cmd.is_empty() {
        return Err(Error::invalid("cmd", "it is empty"));
    }
    let seconds = u64::try_from(request.timeout).unwrap_or_default();
    let timeout = Some(Duration::from_secs(seconds)).filter(|timeout| !timeout.is_zero());
    let exec = Exec { argv: request.cmd, timeout, ..Exec::default() };
    let (runtime, id) = (node.runtime.clone(), container.record.id.clone());
    // The end of the call, also by a client that gives up, drops `_waiting`, and that ends the process.
    let (client, _waiting) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::io("make", "a pipe"))?;
    let output = node.blocking(move || runtime.exec_sync(&id, &exec, &client)).await?;
    if output.timed_out {
        return Err(Error::TimedOut { what: format!("command in container {}", container.id()), seconds });
    }
    let exit_code = output.code;
    let [stdout, stderr] = fit(output);
    Ok(cri::ExecSyncResponse { stdout, stderr, exit_code })
}

/// Cuts both outputs so that the answer stays within `MESSAGE_MAX`, beyond which kubelet refuses it. Each may have
/// at least half of the room; a note at the end of standard error says how many bytes of each are missing.
fn fit(output: ExecOutput) -> [Vec<u8>; 2] {
    let ExecOutput { mut stdout, mut stderr, dropped, .. } = output;
    let room = MESSAGE_MAX - BESIDES;
    if dropped == [0; 2] && stdout.len().saturating_add(stderr.len()) <= room {
        return [stdout, stderr];
    }
    let rest = room.saturating_sub(stdout.len());
    let [out, err] = [&mut stdout, &mut stderr].map(|bytes| bytes.len());
    stderr.truncate(rest.max(room / 2));
    stdout.truncate(room.saturating_sub(stderr.len()));
    let lost = |before: usize, after: usize, dropped: u64| dropped.saturating_add((before - after) as u64);
    let (out, err) = (lost(out, stdout.len(), dropped[0]), lost(err, stderr.len(), dropped[1]));
    if stderr.last().is_some_and(|last| *last != b'\n') {
        stderr.push(b'\n');
    }
    let note = format!(
        "slipway: the output was cut: its answer has no room for {out} bytes of standard output and {err} of standard \
         error\n"
    );
    stderr.extend_from_slice(note.as_bytes());
    [stdout, stderr]
}

/// Reopens the container's log file after its rotation.
pub(crate) async fn reopen_log(node: &Arc<Node>, id: &str) -> Result<cri::ReopenContainerLogResponse> {
    let container = node.containers.find_cri(id)?;
    let (runtime, id) = (node.runtime.clone(), container.record.id.clone());
    node.blocking(move || runtime.reopen_log(&id)).await?;
    Ok(cri::ReopenContainerLogResponse {})
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    fn output(out: usize, err: usize, dropped: [u64; 2]) -> ExecOutput {
        ExecOutput { stdout: vec![b'o'; out], stderr: vec![b'e'; err], code: 255, timed_out: false, dropped }
    }

    #[test]
    fn an_answer_fits_its_message_and_tells_what_it_lacks() {
        const MAX: usize = MESSAGE_MAX;
        for (out, err, dropped) in [
            (MAX, 0, [0; 2]),
            (0, MAX, [0; 2]),
            (MAX, MAX, [u64::MAX, 7]),
            (MAX / 2, MAX / 2, [0; 2]),
            (MAX - BESIDES, 1, [0; 2]),
            (5, MAX - BESIDES, [0; 2]),
            (3, 3, [1, 0]),
        ] {
            let [stdout, stderr] = fit(output(out, err, dropped));
            let kept = stderr.iter().take_while(|byte| **byte == b'e').count();
            let note = String::from_utf8_lossy(&stderr[kept..]).into_owned();
            let lost = |all: usize, kept: usize, dropped: u64| dropped.saturating_add((all - kept) as u64);
            let said = [lost(out, stdout.len(), dropped[0]), lost(err, kept, dropped[1])];
            assert!(said.iter().all(|lost| note.contains(&lost.to_string())), "{out} {err}: {note}");
            let answer = cri::ExecSyncResponse { stdout, stderr, exit_code: i32::MIN };
            assert!(answer.encoded_len() <= MAX, "{}", answer.encoded_len());
            assert!(out + err < MAX - BESIDES || answer.encoded_len() > MAX - BESIDES - 16, "{out} {err}");
        }
        let [stdout, stderr] = fit(output(MAX - BESIDES - 5, 5, [0; 2]));
        assert_eq!((stdout.len(), stderr.len()), (MAX - BESIDES - 5, 5));
    }
}
