//! Cache keys: what is cached, written so that no two different things can ever share a name.
//!
//! A logical key is a sequence of length-prefixed parts, so `a=1&b=2` and the value `1&b=2` of `a` differ.
//! Its 128-bit XXH3 hash names it in every tier; the full key travels with each entry and is compared on a hit. So two
//! keys made to collide push each other out and no more: a cryptographic hash would cost more than the rest of a hit.

use std::fmt::{self, Write as _};

use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Keys up to this long live inline, without a heap allocation.
type Logical = SmallVec<[u8; 96]>;

/// Tells the parts of a key apart by their meaning, so that a scope can't pose as a parameter.
#[derive(Clone, Copy)]
enum Tag {
    Entity = 1,
    Scope = 2,
    Name = 3,
    Value = 4,
}

/// A tag and a length.
const HEAD: usize = 5;
/// The slot of a kind of thing, by which it is forgotten as a whole. Kinds that share one are forgotten together.
pub fn slot(kind: &str) -> u8 {
    slot_of(kind.as_bytes())
}

fn slot_of(kind: &[u8]) -> u8 {
    // Any of the hash's bytes will do.
    xxh3_64(kind).to_be_bytes()[7]
}

/// The name of one cached thing, the same on every replica and in every version of the service.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheKey {
    hash: u128,
    logical: Logical,
}

impl CacheKey {
    /// Starts a key for one kind of thing, such as `user`.
    ///
    /// The order of `scope` and `param` calls is part of the key.
    #[inline]
    pub fn builder(entity: &str) -> KeyBuilder {
        let mut builder = KeyBuilder(Logical::new());
        builder.part(Tag::Entity, entity.as_bytes());
        builder
    }

    /// The 128-bit hash that names this key in every tier.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// Which group of kinds it belongs to, see [`slot`].
    pub fn slot(&self) -> u8 {
        // The entity is the first part: a tag, its length, its name.
        let (head, rest) = self.logical.split_at(HEAD.min(self.logical.len()));
        let length = head.get(1..).and_then(|length| length.try_into().ok()).map_or(0, u32::from_be_bytes);
        slot_of(rest.get(..length as usize).unwrap_or(rest))
    }

    /// The canonical encoding, compared on every hit.
    pub fn logical(&self) -> &[u8] {
        &self.logical
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The parts may hold personal data: a key shows itself by its hash alone.
        write!(f, "CacheKey({:032x})", self.hash)
    }
}

/// Collects the parts of a [`CacheKey`].
pub struct KeyBuilder(Logical);

impl KeyBuilder {
    /// Adds who may see the thing: a tenant, a role, a locale. Two scopes never share an entry.
    #[inline]
    pub fn scope(mut self, scope: impl fmt::Display) -> Self {
        self.display(Tag::Scope, &scope);
        self
    }

    /// Adds a parameter. Integers and strings are written without an allocation.
    #[inline]
    pub fn param(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.part(Tag::Name, name.as_bytes());
        self.display(Tag::Value, &value);
        self
    }

    /// Finishes the key.
    pub fn build(self) -> CacheKey {
        CacheKey { hash: xxh3_128(&self.0), logical: self.0 }
    }

    #[inline]
    fn part(&mut self, tag: Tag, bytes: &[u8]) {
        let at = self.open(tag);
        self.0.extend_from_slice(bytes);
        self.close(at);
    }

    #[inline]
    fn display(&mut self, tag: Tag, value: &dyn fmt::Display) {
        let at = self.open(tag);
        // Writing into a buffer can't fail; a `Display` that returns an error on its own is cut off there.
        let cut = write!(self, "{value}").is_err();
        self.close(at);
        if cut {
            self.0.push(0);
        }
    }

    /// Writes the tag and room for the length; `close` fills the length in.
    #[inline]
    fn open(&mut self, tag: Tag) -> usize {
        self.0.extend_from_slice(&[tag as u8, 0, 0, 0, 0]);
        self.0.len()
    }

    #[inline]
    fn close(&mut self, at: usize) {
        let len = u32::try_from(self.0.len() - at).unwrap_or(u32::MAX);
        self.0[at - 4..at].copy_from_slice(&len.to_be_bytes());
    }
}

impl fmt::Write for KeyBuilder {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}
