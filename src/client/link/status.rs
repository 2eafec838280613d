//! What `ringfs status` shows of a link.

/// A snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct LinkStatus {
    /// Where the server is.
    pub target: String,
    /// Present session, 32 hexadecimal digits.
    pub session: String,
    /// Whether requests can go out at this moment.
    pub connected: bool,
    /// Milliseconds since `connected` changed last.
    pub since_ms: u64,
    /// How often the connection came back.
    pub reconnects: u64,
    /// How often a server had forgotten the session.
    pub sessions_lost: u64,
    /// Requests without an answer.
    pub in_flight: usize,
    /// Bytes of these requests.
    pub in_flight_bytes: usize,
    /// Frames handed to the server, those sent again included.
    pub frames_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// Answers nobody waited for any more.
    pub answers_ignored: u64,
    /// Round trip of the last keepalive, in microseconds.
    pub rtt_last_us: Option<u64>,
    /// The same, smoothed (one part in eight).
    pub rtt_smoothed_us: Option<u64>,
    /// Protocol version in force.
    pub version: u32,
    /// Starts of the server so far.
    pub epoch: u64,
    /// Milliseconds a silent session lives.
    pub lease_ms: u32,
    /// The server's program version.
    pub server: String,
    /// Why there is no connection, in one line.
    pub fault: Option<String>,
}
