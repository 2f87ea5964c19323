//! Cache keys: what is cached, written so that no two different things can ever share a name.
//!
//! A logical key is a sequence of length-prefixed parts, so `a=1&b=2` and the value `1&b=2` of `a` differ.
//! Its 128-bit BLAKE3 hash names it in every tier; the full key travels with each entry and is compared on a hit.

use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Keys up to this long live inline, without a heap allocation.
const INLINE: usize = 94;

/// Separates the parts of a key by their meaning, so that a scope can't pose as a parameter.
#[derive(Clone, Copy)]
enum Part {
    Entity = 1,
    Scope = 2,
    Name = 3,
    Value = 4,
}

/// The name of one cached thing, the same on every replica and in every version of the service.
#[derive(Clone)]
pub struct CacheKey {
    hash: u128,
    logical: Logical,
}

#[derive(Clone)]
enum Logical {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Arc<[u8]>),
}

impl CacheKey {
    /// Starts a key for one kind of thing, such as `user`.
    ///
    /// The order of `scope` and `param` calls is part of the key.
    pub fn builder(entity: &'static str) -> KeyBuilder {
        let mut builder = KeyBuilder { len: 0, bytes: [0; INLINE], spilled: Vec::new() };
        builder.part(Part::Entity, entity.as_bytes());
        builder
    }

    /// The 128-bit hash that names this key in every tier.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The canonical encoding, compared on every hit.
    #[must_use]
    pub fn logical(&self) -> &[u8] {
        match &self.logical {
            Logical::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Logical::Heap(bytes) => bytes,
        }
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.logical() == other.logical()
    }
}

impl Eq for CacheKey {}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The parts may hold personal data: a key shows itself by its hash alone.
        write!(f, "CacheKey({:032x})", self.hash)
    }
}

/// Collects the parts of a [`CacheKey`].
#[must_use]
pub struct KeyBuilder {
    len: usize,
    bytes: [u8; INLINE],
    /// Holds the whole key once it outgrew `bytes`.
    spilled: Vec<u8>,
}

impl KeyBuilder {
    /// Adds who may see the thing: a tenant, a role, a locale. Two scopes never share an entry.
    pub fn scope(mut self, scope: impl fmt::Display) -> Self {
        self.display(Part::Scope, &scope);
        self
    }

    /// Adds a parameter. Integers and strings are written without an allocation.
    pub fn param(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.part(Part::Name, name.as_bytes());
        self.display(Part::Value, &value);
        self
    }

    /// Finishes the key.
    #[must_use]
    pub fn build(self) -> CacheKey {
        let hash = blake3::hash(self.written());
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_bytes()[..16]);
        let logical = match u8::try_from(self.len) {
            Ok(len) if self.spilled.is_empty() => Logical::Inline { len, bytes: self.bytes },
            _ => Logical::Heap(self.spilled.into()),
        };
        CacheKey { hash: u128::from_be_bytes(first), logical }
    }

    fn written(&self) -> &[u8] {
        if self.spilled.is_empty() { &self.bytes[..self.len] } else { &self.spilled }
    }

    fn part(&mut self, part: Part, bytes: &[u8]) {
        let at = self.open(part);
        self.push(bytes);
        self.close(at);
    }

    fn display(&mut self, part: Part, value: &dyn fmt::Display) {
        let at = self.open(part);
        // Writing into a buffer can't fail; a `Display` that returns an error on its own is cut off there.
        let cut = write!(self, "{value}").is_err();
        self.close(at);
        if cut {
            self.push(&[0]);
        }
    }

    /// Writes the tag and room for the length; `close` fills the length in.
    fn open(&mut self, part: Part) -> usize {
        self.push(&[part as u8, 0, 0, 0, 0]);
        self.written().len()
    }

    fn close(&mut self, at: usize) {
        let len = u32::try_from(self.written().len() - at).unwrap_or(u32::MAX).to_be_bytes();
        let written = if self.spilled.is_empty() { &mut self.bytes[..] } else { &mut self.spilled[..] };
        written[at - 4..at].copy_from_slice(&len);
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.spilled.is_empty() {
            let end = self.len + bytes.len();
            if end <= INLINE {
                self.bytes[self.len..end].copy_from_slice(bytes);
                self.len = end;
                return;
            }
            self.spilled.reserve(end.max(2 * INLINE));
            self.spilled.extend_from_slice(&self.bytes[..self.len]);
        }
        self.spilled.extend_from_slice(bytes);
    }
}

impl fmt::Write for KeyBuilder {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.push(s.as_bytes());
        Ok(())
    }
}
