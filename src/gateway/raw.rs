//! Raw bytes both ways, for streams that a request has taken over: attach, exec, sessions.

use tokio::{io::AsyncWriteExt, time::sleep};

use super::flow::{Body, Flow};
use crate::local::{LOOKOUT, Stream, is_gone};

/// Carries bytes until both directions have ended, or one side is gone. Each end that one side tells is told to the
/// other.
pub(super) async fn run(client: &mut Stream, engine: &mut Stream, up: &mut Flow, down: &mut Flow) {
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
            // Who sends no more is not heard when it goes.
            () = sleep(LOOKOUT), if up_ended || down_ended => {
                (up_ended && is_gone(client)) || (down_ended && is_gone(engine))
            }
        };
        if is_over {
            return;
        }
    }
}
