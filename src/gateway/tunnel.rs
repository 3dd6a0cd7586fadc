//! Raw bytes both ways, for streams that a request has taken over: attach, exec, sessions.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{io::AsyncWriteExt, net::UnixStream};

use super::flow::{Body, Flow};

/// Carries bytes until both directions have ended, or one side is gone. Each end that one side tells is told to the
/// other.
pub(super) async fn run(client: &mut UnixStream, engine: &mut UnixStream, up: &mut Flow, down: &mut Flow) {
    let (mut up_ended, mut down_ended) = (false, false);
    while !(up_ended && down_ended) {
        let (client_read, mut client_write) = client.split();
        let (engine_read, mut engine_write) = engine.split();
        let upward = async {
            let passed = up.pass(&client_read, &mut engine_write, &mut Body::Raw).await;
            let _ = engine_write.shutdown().await;
            passed
        };
        let downward = async {
            let passed = down.pass(&engine_read, &mut client_write, &mut Body::Raw).await;
            let _ = client_write.shutdown().await;
            passed
        };
        let is_over = tokio::select! {
            // An engine that takes no more may still have something to say.
            _ = upward, if !up_ended => {
                up_ended = true;
                is_gone(client)
            }
            passed = downward, if !down_ended => {
                down_ended = true;
                passed.is_err() || is_gone(engine)
            }
        };
        if is_over {
            return;
        }
    }
}

/// Whether the other side has closed both directions.
fn is_gone(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::OUT)];
    let ready = poll(&mut polled, Some(&Timespec::default()));
    ready.is_ok_and(|count| count > 0) && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}
