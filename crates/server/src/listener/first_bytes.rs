//! Reads as much of a connection as tells whose it is, and puts it back.

use peerage_transport::Stream;
use tokio::io::AsyncReadExt;

use super::door::{Door, Doors, Look, MAX_PREFIX, Native};
use super::machine::Refusal;

/// Whose a connection is.
#[derive(Debug)]
pub(super) enum Whose {
    /// This node's own; its first message is there whole.
    Native,
    Door(Door),
}

/// Reads until the bytes say whose the stream is, and leaves them to be read again.
pub(super) async fn first_bytes(stream: &mut Stream, doors: &Doors) -> Result<Whose, Refusal> {
    let mut bytes = [0; MAX_PREFIX];
    let mut len = 0;
    loop {
        match doors.look(&bytes[..len]) {
            // No prefix is longer than the buffer, so there is room.
            Look::More => len += more(stream, &mut bytes[len..]).await?,
            Look::Unknown => return Err(Refusal::UnknownProtocol),
            Look::Door(door) => {
                stream.unread(&bytes[..len]);
                return Ok(Whose::Door(door.clone()));
            }
            Look::Native(native) => {
                stream.unread(&bytes[..len]);
                first_message(stream, native).await?;
                return Ok(Whose::Native);
            }
        }
    }
}

/// Waits for the first message: until then nothing is known of who sends it, and it is there soon or never.
async fn first_message(stream: &mut Stream, native: &Native) -> Result<(), Refusal> {
    let mut message = vec![0; native.first_message];
    let mut len = 0;
    while len < message.len() {
        len += more(stream, &mut message[len..]).await?;
    }
    stream.unread(&message);
    Ok(())
}

async fn more(stream: &mut Stream, into: &mut [u8]) -> Result<usize, Refusal> {
    match stream.read(into).await {
        Ok(0) | Err(_) => Err(Refusal::Closed),
        Ok(len) => Ok(len),
    }
}
