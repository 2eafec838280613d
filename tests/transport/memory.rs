//! A file system in memory with one directory, enough to see whether requests and answers arrive whole.
//! It can answer at once or from another thread, and misbehave on request.

use ringfs::base::{Attr, Errno, HandleId, Ino, Kind, Name, Time};
use ringfs::kernel::abi::{InHeader, Opcode};
use ringfs::kernel::decode::{DirWriter, LookupName, Request, reply};
use ringfs::kernel::transport::{Call, Handler, Negotiated, Notifier, Offered, Token, Verdict, Wanted};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use zerocopy::IntoBytes;

/// How requests are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answers {
    AtOnce,
    FromAnotherThread,
}

pub(crate) struct Job {
    header: InHeader,
    args: Vec<u8>,
    payload: Vec<u8>,
    token: Token,
}

pub(crate) struct Memory {
    files: Mutex<Files>,
    /// Tokens of lookups of names that begin with "slow".
    pub held: Mutex<Vec<Token>>,
    /// CREATEs of names that begin with "held", until [`Memory::answer_creates`].
    pub creates: Mutex<Vec<Job>>,
    pub interrupted: Mutex<Vec<u64>>,
    pub forgotten: AtomicU64,
    pub destroyed: AtomicUsize,
    pub notifier: OnceLock<Notifier>,
    pub negotiated: OnceLock<Negotiated>,
    ttl: Duration,
    jobs: Option<Mutex<Sender<Job>>>,
}

#[derive(Default)]
struct Files {
    names: BTreeMap<Vec<u8>, u64>,
    data: BTreeMap<u64, Vec<u8>>,
    last: u64,
}

impl Memory {
    pub(crate) fn new(answers: Answers) -> Arc<Self> {
        Self::with_ttl(answers, Duration::ZERO)
    }

    pub(crate) fn with_ttl(answers: Answers, ttl: Duration) -> Arc<Self> {
        Arc::new_cyclic(|weak: &std::sync::Weak<Self>| {
            let jobs = (answers == Answers::FromAnotherThread).then(|| {
                let (sender, jobs) = channel::<Job>();
                let weak = weak.clone();
                std::thread::spawn(move || {
                    for job in jobs {
                        let Some(memory) = weak.upgrade() else { return };
                        match memory.answer(&job.header, &job.args, &job.payload) {
                            // Both ways to answer late.
                            Ok(bytes) if job.token.unique() % 4 == 0 => job.token.ok(&bytes),
                            Ok(bytes) => job.token.reply_with(bytes.len(), |body| {
                                body.copy_from_slice(&bytes);
                                Ok(bytes.len())
                            }),
                            Err(errno) => job.token.error(errno),
                        }
                    }
                });
                Mutex::new(sender)
            });
            Self {
                files: Mutex::new(Files { last: 1, ..Files::default() }),
                held: Mutex::default(),
                creates: Mutex::default(),
                interrupted: Mutex::default(),
                forgotten: AtomicU64::new(0),
                destroyed: AtomicUsize::new(0),
                notifier: OnceLock::new(),
                negotiated: OnceLock::new(),
                ttl,
                jobs,
            }
        })
    }

    fn attr(ino: u64, data: Option<&Vec<u8>>) -> Attr {
        let (mode, size) = match data {
            Some(data) => (libc::S_IFREG | 0o644, data.len() as u64),
            None => (libc::S_IFDIR | 0o755, 0),
        };
        let time = Time { secs: 1_000_000_000, nanos: 5 };
        let (atime, mtime, ctime, btime) = (time, time, time, time);
        let (nlink, uid, gid, rdev, blocks) = (1, 0, 0, 0, 0);
        Attr { ino: Ino(ino), mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, btime }
    }

    /// The whole file system: bytes of a request to bytes of a reply.
    fn answer(&self, header: &InHeader, args: &[u8], payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut files = self.files.lock().unwrap();
        let node = header.nodeid;
        let entry = |ino: u64, data: &Vec<u8>| reply::entry(&Self::attr(ino, Some(data)), self.ttl, self.ttl);
        Ok(match Request::parse(header, args, payload)? {
            Request::Lookup { name: LookupName::Name(name) } => {
                let ino = *files.names.get(name.bytes()).ok_or(Errno::ENOENT)?;
                entry(ino, &files.data[&ino]).as_bytes().to_vec()
            }
            Request::Getattr { .. } => {
                let data = files.data.get(&node);
                if data.is_none() && node != 1 {
                    return Err(Errno::ENOENT);
                }
                reply::attributes(&Self::attr(node, data), self.ttl).as_bytes().to_vec()
            }
            Request::Setattr(set) => {
                let data = files.data.get_mut(&node).ok_or(Errno::EPERM)?;
                if let Some(size) = set.size {
                    data.resize(usize::try_from(size).unwrap(), 0);
                }
                reply::attributes(&Self::attr(node, Some(data)), self.ttl).as_bytes().to_vec()
            }
            Request::Create { name, .. } => {
                files.last += 1;
                let ino = files.last;
                files.names.insert(name.bytes().to_vec(), ino);
                files.data.insert(ino, Vec::new());
                reply::create(entry(ino, &Vec::new()), reply::open(HandleId(ino), 0)).as_bytes().to_vec()
            }
            Request::Open(_) | Request::Opendir(_) => reply::open(HandleId(node), 0).as_bytes().to_vec(),
            Request::Read(read) => {
                let data = &files.data[&node];
                let from = usize::try_from(read.offset).unwrap().min(data.len());
                data[from..data.len().min(from + read.size as usize)].to_vec()
            }
            Request::Write { args, data } => {
                let file = files.data.get_mut(&node).ok_or(Errno::EBADF)?;
                let from = usize::try_from(args.offset).unwrap();
                file.resize(file.len().max(from + data.len()), 0);
                file[from..from + data.len()].copy_from_slice(data);
                reply::written(args.size).as_bytes().to_vec()
            }
            Request::Readdir(read) => {
                let mut body = vec![0; read.size as usize];
                let mut dir = DirWriter::new(&mut body);
                for (index, (name, &ino)) in
                    files.names.iter().enumerate().skip(usize::try_from(read.offset).unwrap())
                {
                    let name = Name::parse(name).unwrap();
                    if !dir.add(Ino(ino), index as u64 + 1, Kind::File, name) {
                        break;
                    }
                }
                let used = dir.used();
                body.truncate(used);
                body
            }
            Request::Unlink { name } => {
                files.names.remove(name.bytes()).map(|_| Vec::new()).ok_or(Errno::ENOENT)?
            }
            Request::Rename { name, new_name, .. } => {
                let ino = files.names.remove(name.bytes()).ok_or(Errno::ENOENT)?;
                files.names.insert(new_name.bytes().to_vec(), ino);
                Vec::new()
            }
            Request::Statfs => reply::statfs(100, 50, 10, 5).as_bytes().to_vec(),
            Request::Release(_) | Request::Releasedir(_) | Request::Flush(_) | Request::Fsync(_) => {
                Vec::new()
            }
            _ => return Err(Errno::ENOSYS),
        })
    }

    /// Answers the CREATEs that are held.
    pub(crate) fn answer_creates(&self) {
        for job in std::mem::take(&mut *self.creates.lock().unwrap()) {
            job.token.ok(&self.answer(&job.header, &job.args, &job.payload).unwrap());
        }
    }

    /// Names that make trouble. None: an ordinary one.
    fn trouble<'q>(&self, call: Call<'q>) -> Result<Verdict, Box<Call<'q>>> {
        if call.opcode() == Opcode::Create && call.payload().starts_with(b"held") {
            let (header, args, payload) =
                (*call.header(), call.args_bytes().to_vec(), call.payload().to_vec());
            let (token, verdict) = call.defer();
            self.creates.lock().unwrap().push(Job { header, args, payload, token });
            return Ok(verdict);
        }
        if call.opcode() != Opcode::Lookup {
            return Err(Box::new(call));
        }
        match call.payload() {
            b"panic\0" => panic!("as the test asked"),
            b"dropped\0" => {
                let (token, verdict) = call.defer();
                drop(token);
                Ok(verdict)
            }
            name if name.starts_with(b"slow") => {
                let (token, verdict) = call.defer();
                self.held.lock().unwrap().push(token);
                Ok(verdict)
            }
            name if name.starts_with(b"wait") => {
                let (token, verdict) = call.defer_wait();
                self.held.lock().unwrap().extend(token);
                Ok(verdict)
            }
            b"toomuch\0" => Ok(call.reply_with(10, |_| Ok(11))),
            b"fillpanic\0" => {
                let (token, verdict) = call.defer();
                std::thread::spawn(move || token.reply_with(9, |_| panic!("as the test asked")));
                Ok(verdict)
            }
            _ => Err(Box::new(call)),
        }
    }
}

impl Handler for Memory {
    fn handle(&self, call: Call<'_>) -> Verdict {
        let call = match self.trouble(call) {
            Ok(verdict) => return verdict,
            Err(call) => *call,
        };
        if let Some(jobs) = &self.jobs {
            let (header, args, payload) =
                (*call.header(), call.args_bytes().to_vec(), call.payload().to_vec());
            let (token, verdict) = call.defer();
            jobs.lock().unwrap().send(Job { header, args, payload, token }).unwrap();
            return verdict;
        }
        match self.answer(call.header(), call.args_bytes(), call.payload()) {
            Ok(bytes) => call.ok(&bytes),
            Err(errno) => call.error(errno),
        }
    }

    fn forget(&self, _: Ino, lookups: u64) {
        self.forgotten.fetch_add(lookups, Ordering::Relaxed);
    }

    fn interrupt(&self, unique: u64) {
        self.interrupted.lock().unwrap().push(unique);
        let mut held = self.held.lock().unwrap();
        if let Some(at) = held.iter().position(|token| token.unique() == unique) {
            held.swap_remove(at).error(Errno::EINTR);
        }
    }

    fn init(&self, _: &Offered) -> Wanted {
        Wanted::default()
    }

    fn started(&self, negotiated: &Negotiated, notifier: Notifier) {
        self.negotiated.set(*negotiated).unwrap();
        assert!(self.notifier.set(notifier).is_ok());
    }

    fn destroyed(&self) {
        self.destroyed.fetch_add(1, Ordering::SeqCst);
    }
}
