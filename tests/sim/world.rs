//! All of it in one thread: time, the network, the server's process and what happens to it.

use super::client::{Client, session};
use super::counts::Counts;
use super::dice::Dice;
use super::disk::Disk;
use super::model::{Model, format};
use super::plant::Plant;
use ringfs::base::{Caller, Ino, NameHash, Time};
use ringfs::server::meta::{Engine, WriteTxn};
use ringfs::server::serve::{CarriedPeer, Server};
use ringfs::wire::{Frame, Mutation};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub(super) const MS: u64 = 1000;
pub(super) const LEASE: u64 = 2000 * MS;
/// A client stops using its leases so long before they end.
pub(super) const MARGIN: u64 = LEASE / 10;
/// The last events, told when a seed fails.
pub(super) type Trace = Arc<Mutex<VecDeque<String>>>;

pub(super) enum Event {
    /// A frame arrives at the server, or at the client.
    Up(u64, Frame),
    Down(u64, Frame),
    /// A client's connection is found broken by it, by the server.
    Broken(u64),
    Missed(u64),
    Client(usize, u64, Step),
    Work,
    Tick,
    Turn,
    Fault,
    Restart,
    Revive(usize),
}

/// Something a client does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Op,
    /// The second half of a call: the kernel has looked the names up.
    Do(super::ops::Op),
    Pump,
    Ping,
    Connect,
    Invalidated,
}

/// A connection, seen from both ends.
pub(super) struct Conn {
    pub(super) client: usize,
    pub(super) life: u64,
    pub(super) lane: usize,
    pub(super) version: u16,
    pub(super) peer: Option<CarriedPeer>,
    /// The client uses it.
    pub(super) open: bool,
    pub(super) closed: Arc<AtomicBool>,
    pub(super) up_last: u64,
    pub(super) down_last: u64,
}

/// How rough it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    pub(super) clients: usize,
    pub(super) delay: u64,
    pub(super) pause: u64,
    pub(super) faults: u64,
    pub(super) cuts: bool,
    pub(super) crashes: bool,
    pub(super) kills: bool,
    pub(super) power: bool,
    pub(super) pauses: bool,
    pub(super) inodes_max: usize,
    /// How long one client works alone, before it is another's turn or everybody's.
    pub(super) turn: u64,
    /// Out of ten calls, how many go to a client's own directory.
    pub(super) homely: u64,
    pub(super) ops: u32,
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: u64,
    pub(super) profile: Profile,
    pub(super) plant: Option<Plant>,
    pub(super) hash: NameHash,
    pub(super) clock: Arc<AtomicU64>,
    pub(super) disk: Disk,
    pub(super) server: Option<Server>,
    pub(super) out: Arc<Mutex<Vec<(u64, Frame)>>>,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    nth: u64,
    pub(super) clients: Vec<Client>,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) next_conn: u64,
    pub(super) model: Model,
    /// What the server has executed, and in which commit.
    pub(super) executed: BTreeMap<(u128, u64), u64>,
    /// Waited mutations of all sessions.
    pub(super) waited: BTreeMap<(u128, u64), (Caller, Mutation<'static>)>,
    /// Waited ones that took effect in the model.
    pub(super) acted: BTreeSet<(u128, u64)>,
    pub(super) asked: BTreeMap<(u64, u64), super::server::Asked>,
    /// First and last ticket of each batch: those between that are not in it are folded into the others.
    pub(super) spans: BTreeMap<(u128, u64), (u64, u64)>,
    /// Waited ones whose clients have not heard the outcome yet: what they changed, and of which of that others have been told.
    pub(super) unheard: BTreeMap<(u128, u64), BTreeMap<Ino, bool>>,
    /// Sessions that the server knows, and those it has ended.
    pub(super) live: BTreeSet<u128>,
    pub(super) ended: BTreeSet<u128>,
    /// Lost with the power so far.
    pub(super) powerless: BTreeSet<(u128, u64)>,
    /// Some of that is lost with its client too: nobody does it again.
    pub(super) widowed: bool,
    /// The server lost what a client that is gone had made: what was seen of it fails late.
    pub(super) torn: bool,
    /// Operations that are still to come; 0: everything comes to rest.
    pub(super) ops_left: u32,
    pub(super) calm: bool,
    /// Whose turn it is; `None`: everybody's.
    pub(super) active: Option<usize>,
    pub(super) trace: Trace,
    pub(super) counts: Counts,
}

impl World {
    pub(super) fn new(seed: u64, plant: Option<Plant>, trace: Trace) -> Self {
        let mut dice = Dice(seed);
        let rough = dice.roll(6);
        let profile = Profile {
            clients: usize::try_from(dice.between(2, 5)).unwrap(),
            delay: dice.pick(&[MS / 10, MS, 20 * MS]),
            pause: dice.pick(&[MS, 10 * MS, 50 * MS]),
            faults: dice.pick(&[300 * MS, 1000 * MS]),
            cuts: rough >= 1,
            crashes: rough == 3 || rough == 5,
            kills: rough == 2 || rough == 4 || rough == 5,
            power: rough == 4 || rough == 5,
            pauses: rough >= 3,
            inodes_max: dice.pick(&[6, 100]),
            homely: dice.pick(&[0, 6, 9]),
            turn: dice.pick(&[0, 300 * MS, 1500 * MS, 1500 * MS]),
            ops: u32::try_from(dice.between(60, 240)).unwrap(),
        };
        let hash = NameHash::new([9; 16]);
        let disk = Disk::default();
        let mut txn = WriteTxn::new(&disk);
        format(&mut txn, &hash);
        txn.commit().unwrap();
        disk.persist().unwrap();
        let clients =
            (0..profile.clients).map(|id| Client::new(id, 0, hash, profile.inodes_max)).collect::<Vec<_>>();
        let mut world = Self {
            dice,
            now: 1_000_000,
            profile,
            plant,
            hash,
            clock: Arc::new(AtomicU64::new(1_000_000)),
            disk,
            server: None,
            out: Arc::default(),
            events: BTreeMap::new(),
            nth: 0,
            clients,
            conns: BTreeMap::new(),
            next_conn: 1,
            model: Model::new(hash),
            executed: BTreeMap::new(),
            waited: BTreeMap::new(),
            acted: BTreeSet::new(),
            asked: BTreeMap::new(),
            unheard: BTreeMap::new(),
            spans: BTreeMap::new(),
            live: BTreeSet::new(),
            ended: BTreeSet::new(),
            powerless: BTreeSet::new(),
            widowed: false,
            torn: false,
            ops_left: profile.ops,
            calm: false,
            active: None,
            trace,
            counts: Counts::default(),
        };
        world.note(format!("{profile:?}"));
        world.start();
        for id in 0..profile.clients {
            world.begin(id);
        }
        world.after(7 * MS, Event::Work);
        world.after(100 * MS, Event::Tick);
        world.after(profile.faults, Event::Fault);
        if profile.turn > 0 {
            world.after(profile.turn, Event::Turn);
        }
        world
    }

    pub(super) fn note(&self, text: String) {
        let mut trace = self.trace.lock().unwrap();
        if trace.len() >= super::number("SIM_EVENTS").map_or(120, |events| usize::try_from(events).unwrap()) {
            trace.pop_front();
        }
        trace.push_back(format!("{:>10.3} {text}", self.now as f64 / 1000.0));
    }

    pub(super) fn planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// The server's time.
    pub(super) fn time(&self) -> Time {
        time_of(self.now)
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn at(&mut self, when: u64, event: Event) {
        self.nth += 1;
        self.events.insert((when, self.nth), event);
    }

    pub(super) fn step(&mut self, client: usize, delay: u64, step: Step) {
        let life = self.clients[client].life;
        self.after(delay, Event::Client(client, life, step));
    }

    pub(super) fn begin(&mut self, client: usize) {
        let (connect, op) = (self.dice.roll(5 * MS), self.dice.roll(20 * MS));
        self.step(client, connect, Step::Connect);
        self.step(client, op, Step::Op);
        self.step(client, LEASE / 4, Step::Ping);
    }

    /// A frame leaves one end of a connection; those of one connection keep their order.
    pub(super) fn carry(&mut self, conn: u64, up: bool, frame: Frame) {
        let delay = 1 + self.dice.roll(self.profile.delay) + self.dice.roll(1 + self.profile.delay / 4);
        let Some(link) = self.conns.get_mut(&conn) else { return };
        let last = if up { &mut link.up_last } else { &mut link.down_last };
        let when = (self.now + delay).max(*last + 1);
        *last = when;
        let event = if up { Event::Up(conn, frame) } else { Event::Down(conn, frame) };
        self.at(when, event);
    }

    pub(super) fn new_conn(&mut self, client: usize, lane: usize, closed: Arc<AtomicBool>) -> u64 {
        let id = self.next_conn;
        self.next_conn += 1;
        let life = self.clients[client].life;
        let conn = Conn {
            client,
            life,
            lane,
            version: 0,
            peer: None,
            open: false,
            closed,
            up_last: 0,
            down_last: 0,
        };
        self.conns.insert(id, conn);
        id
    }

    /// Lets one event happen; false: there is none.
    pub(super) fn next(&mut self) -> bool {
        let Some(((when, nth), event)) = self.events.pop_first() else { return false };
        self.now = self.now.max(when);
        self.clock.store(self.now, Ordering::Relaxed);
        match event {
            Event::Up(conn, frame) => self.arrives_at_server(conn, frame),
            Event::Down(conn, frame) => match self.deferred(conn) {
                // In its old place among those that wait with it.
                Some(until) => drop(self.events.insert((until, nth), Event::Down(conn, frame))),
                None => self.arrives_at_client(conn, &frame),
            },
            Event::Broken(conn) => match self.deferred(conn) {
                Some(until) => drop(self.events.insert((until, nth), Event::Broken(conn))),
                None => self.broken(conn),
            },
            Event::Missed(conn) => {
                if let Some(link) = self.conns.get_mut(&conn) {
                    link.peer = None;
                    self.after_server();
                }
            }
            Event::Client(client, life, step) => {
                if self.clients[client].life != life || !self.clients[client].alive {
                    return true;
                }
                let until = self.clients[client].paused_until;
                if until > self.now {
                    self.events.insert((until, nth), Event::Client(client, life, step));
                } else {
                    self.client_step(client, step);
                }
            }
            Event::Work => {
                if let Some(server) = &self.server {
                    server.work();
                    self.after_server();
                }
                let pause = self.dice.pick(&[2 * MS, 20 * MS, 300 * MS]);
                self.after(pause, Event::Work);
            }
            Event::Tick => {
                if let Some(server) = &self.server {
                    server.tick();
                    self.after_server();
                }
                self.after(100 * MS, Event::Tick);
            }
            Event::Turn => {
                let who = usize::try_from(self.dice.roll(self.profile.clients as u64 + 1)).unwrap();
                self.active = (who < self.profile.clients).then_some(who);
                let turn = self.dice.roll(2 * self.profile.turn);
                self.after(turn, Event::Turn);
            }
            Event::Fault => {
                if !self.calm {
                    self.fault();
                    let pause = self.dice.roll(2 * self.profile.faults);
                    self.after(pause, Event::Fault);
                }
            }
            Event::Restart => {
                if self.server.is_none() {
                    self.start();
                }
            }
            Event::Revive(client) => {
                self.clients[client].alive = true;
                self.note(format!("client {client} comes back as another"));
                self.begin(client);
            }
        }
        true
    }

    /// A client that stands still receives later.
    pub(super) fn deferred(&self, conn: u64) -> Option<u64> {
        let link = self.conns.get(&conn)?;
        let client = &self.clients[link.client];
        (client.life == link.life && client.paused_until > self.now).then_some(client.paused_until)
    }

    /// Runs until nothing is to come any more.
    pub(super) fn run(&mut self) {
        let mut steps = 0_u64;
        while self.ops_left > 0 || !self.at_rest() {
            if self.ops_left == 0 && !self.calm {
                self.calm = true;
                self.note("no more operations".into());
            }
            assert!(self.next(), "nothing happens any more");
            steps += 1;
            assert!(steps < 400_000, "it never comes to rest: {}", self.unrest());
        }
        self.at_the_end();
    }

    pub(super) fn new_session(&mut self, client: usize) {
        let life = self.clients[client].life;
        let nth = self.clients[client].session & 0xffff_ffff;
        self.clients[client].session = session(client, life, u64::try_from(nth).unwrap());
        self.clients[client].fresh = true;
    }
}

pub(super) fn time_of(micros: u64) -> Time {
    let (secs, rest) = (micros / 1_000_000, micros % 1_000_000);
    Time { secs: 1_000_000 + i64::try_from(secs).unwrap(), nanos: u32::try_from(rest * 1000).unwrap() }
}
