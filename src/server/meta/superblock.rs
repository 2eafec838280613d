//! What a volume is: the first record of a store.

use super::{NameHash, StoreFault, Txn, View, keys};
use crate::base::Time;
use prost::Message;

/// Version of the store's format that this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// The superblock. Written once, when the store is made. New fields get new tags.
#[derive(Clone, PartialEq, Message)]
pub struct Superblock {
    /// Version of the format of everything in the store.
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// Name of the volume: 16 random bytes (version 4 UUID).
    #[prost(bytes = "vec", tag = "2")]
    pub uuid: Vec<u8>,
    /// When it was made: seconds since 1970.
    #[prost(int64, tag = "3")]
    pub created_secs: i64,
    /// When it was made: nanoseconds past the second.
    #[prost(uint32, tag = "4")]
    pub created_nanos: u32,
    /// Secret key of the hash of names, 16 bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub name_key: Vec<u8>,
}

impl Superblock {
    /// That of a new volume. Both arguments come from the system's random numbers.
    #[must_use]
    pub fn new(uuid: [u8; 16], name_key: [u8; 16], created: Time) -> Self {
        let mut uuid = uuid;
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        Self {
            format: FORMAT,
            uuid: uuid.to_vec(),
            created_secs: created.secs,
            created_nanos: created.nanos,
            name_key: name_key.to_vec(),
        }
    }

    /// The hash of names of this volume.
    ///
    /// # Errors
    /// Damaged: the key has another length.
    pub fn name_hash(&self) -> Result<NameHash, StoreFault> {
        let key = self.name_key.as_slice().try_into();
        key.map(NameHash::new).map_err(|_| StoreFault::damaged(keys::SUPERBLOCK, "name key is not 16 bytes"))
    }

    /// The name of the volume as people write it.
    #[must_use]
    pub fn uuid_text(&self) -> String {
        let mut text = String::with_capacity(36);
        for (at, byte) in self.uuid.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

/// The superblock; `None` in an empty store.
///
/// # Errors
/// It cannot be read or is damaged. Its format is not judged here.
pub fn get(view: &dyn View) -> Result<Option<Superblock>, StoreFault> {
    let Some(bytes) = view.get(keys::SUPERBLOCK)? else { return Ok(None) };
    match Superblock::decode(&*bytes) {
        Ok(superblock) => Ok(Some(superblock)),
        Err(_) => Err(StoreFault::damaged(keys::SUPERBLOCK, "not a superblock")),
    }
}

/// Writes it.
pub fn put(txn: &mut dyn Txn, superblock: &Superblock) {
    txn.put(keys::SUPERBLOCK, &superblock.encode_to_vec());
}

#[cfg(test)]
mod tests {
    use super::Superblock;
    use crate::base::Time;

    #[test]
    fn the_uuid_is_a_version_4_one() {
        let text = Superblock::new([0xff; 16], [1; 16], Time::default()).uuid_text();
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
