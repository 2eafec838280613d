//! What goes out on one connection. Whoever has an answer sends it at once if the socket takes it; what does not fit
//! is left to the connection's writer thread, so nobody waits for a peer that does not read.
//!
//! Two bounds: above [`ROOM_BYTES`] the reader takes no more frames, so a client that asks without taking answers slows
//! itself down; above [`QUEUE_BYTES_MAX`], which only answers of other threads can reach then, the connection is closed.

use super::socket::{STALL, Socket};
use crate::wire::Frame;
use crate::wire::frame::HEADER_BYTES;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Answers waiting to be sent before no more frames are taken: two of the largest.
const ROOM_BYTES: usize = 8 << 20;

/// Answers waiting to be sent at most.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Answers waiting to be sent at most: also small ones take memory.
const QUEUE_FRAMES_MAX: usize = 16_384;

/// See the module.
pub(super) struct Output {
    socket: Arc<Socket>,
    state: Mutex<State>,
    /// Something was queued or sent, or the end has come.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Piece>,
    /// The writer thread is sending the piece it took from the front.
    sending: bool,
    /// Bytes not sent yet, of all pieces.
    bytes: usize,
    /// All bytes ever sent by the writer: whether the peer takes anything.
    taken: u64,
    /// Nothing more comes; the writer ends when the queue is empty.
    last: bool,
    /// The connection is dead.
    closed: bool,
}

struct Piece {
    header: [u8; HEADER_BYTES],
    body: Vec<u8>,
    payload: Bytes,
    sent: usize,
}

impl Piece {
    fn new(frame: Frame) -> Self {
        Self { header: frame.header.encode(), body: frame.body, payload: frame.payload, sent: 0 }
    }

    fn left(&self) -> usize {
        HEADER_BYTES + self.body.len() + self.payload.len() - self.sent
    }

    /// Sends some; says how much.
    fn send(&mut self, socket: &Socket, wait: bool) -> io::Result<usize> {
        let mut skip = self.sent;
        let pieces = [&self.header[..], &self.body, &self.payload].map(|piece| {
            let from = skip.min(piece.len());
            skip -= from;
            IoSlice::new(&piece[from..])
        });
        let sent = socket.send(&pieces, wait)?;
        self.sent += sent;
        Ok(sent)
    }
}

impl Output {
    pub(super) fn new(socket: Arc<Socket>) -> Self {
        Self { socket, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Sends a frame or queues it. Never blocks on the peer. On a dead connection the frame is dropped: its client
    /// asks again when it is back.
    pub(super) fn send(&self, frame: Frame) {
        let mut piece = Piece::new(frame);
        let mut state = self.state();
        if state.closed {
            return;
        }
        if state.queue.is_empty() && !state.sending {
            match piece.send(&self.socket, false) {
                Ok(_) if piece.left() == 0 => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.close_locked(&mut state),
            }
        }
        state.bytes += piece.left();
        state.queue.push_back(piece);
        if state.bytes > QUEUE_BYTES_MAX || state.queue.len() > QUEUE_FRAMES_MAX {
            let (bytes, frames) = (state.bytes, state.queue.len());
            tracing::warn!(
                peer = self.socket.peer(),
                bytes,
                frames,
                "peer does not take its answers: closed"
            );
            self.close_locked(&mut state);
        }
        self.changed.notify_all();
    }

    /// Waits until there is room for the answers to one more frame; calls `alive` whenever the peer took something.
    /// `false`: the connection is dead, or the peer takes nothing.
    pub(super) fn wait_for_room(&self, alive: &dyn Fn()) -> bool {
        let mut state = self.state();
        let mut until = Instant::now() + STALL;
        while state.bytes > ROOM_BYTES && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(peer = self.socket.peer(), "peer takes no answers: closed");
                self.close_locked(&mut state);
                break;
            }
            let taken = state.taken;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            if state.taken > taken {
                alive();
                until = Instant::now() + STALL;
            }
        }
        !state.closed
    }

    /// Closes the connection at once; may be called by anybody, any number of times.
    pub(super) fn close(&self) {
        self.close_locked(&mut self.state());
    }

    #[cfg(test)]
    pub(super) fn queued_bytes(&self) -> usize {
        self.state().bytes
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        !self.state().closed
    }

    /// Nothing more will be sent: the writer ends after what is queued.
    pub(super) fn finish(&self) {
        self.state().last = true;
        self.changed.notify_all();
    }

    /// The writer thread.
    pub(super) fn write_loop(&self) {
        let mut state = self.state();
        loop {
            if state.closed {
                return;
            }
            let Some(mut piece) = state.queue.pop_front() else {
                if state.last {
                    return self.close_locked(&mut state);
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.sending = true;
            drop(state);
            let sent = piece.send(&self.socket, true);
            state = self.state();
            state.sending = false;
            match sent {
                Ok(count) => {
                    state.bytes -= count.min(state.bytes);
                    state.taken += count as u64;
                    if piece.left() > 0 {
                        state.queue.push_front(piece);
                    }
                    self.changed.notify_all();
                }
                Err(_) => self.close_locked(&mut state),
            }
        }
    }

    fn close_locked(&self, state: &mut State) {
        state.closed = true;
        state.queue.clear();
        state.bytes = 0;
        self.socket.shutdown(Shutdown::Both);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
