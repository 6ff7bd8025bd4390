//! What one received message or file may expand to (REC-09): decompressed bytes, JSON values, and memory. The memory is
//! reserved before it is allocated, through [`UnpackMemory`], and a [`Held`] gives it back when the data is dropped. So
//! data that turns out to be broken costs nothing once it is gone. Bytes and values count as work: they are not given
//! back, since a message of many broken reports would otherwise be read for hours.

use super::UnpackError;
use crate::limits::{JSON_NODES, REPORT_BYTES, REPORT_RATIO};
use std::io::{ErrorKind, Read};

/// A memory budget that extracted text is charged to.
pub trait UnpackMemory {
    /// Reserves memory.
    ///
    /// # Errors
    ///
    /// When there is not enough memory; nothing is reserved then.
    fn reserve(&self, bytes: usize) -> Result<(), NoMemory>;

    /// Gives back memory that was reserved.
    fn give_back(&self, bytes: usize);
}

/// Why memory is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMemory {
    /// The memory is in use. The same input may succeed later.
    Now,
    /// The input needs more memory than there is. It never succeeds.
    Ever,
}

/// Memory without a limit, for commands that read one file for their user.
#[derive(Debug, Clone, Copy)]
pub struct UnlimitedMemory;

impl UnpackMemory for UnlimitedMemory {
    fn reserve(&self, _: usize) -> Result<(), NoMemory> {
        Ok(())
    }

    fn give_back(&self, _: usize) {}
}

/// Memory that is in use, in bytes; given back on drop.
pub struct Held<'r> {
    memory: &'r dyn UnpackMemory,
    bytes: usize,
}

impl<'r> Held<'r> {
    /// Creates a reservation of no memory.
    pub fn new(memory: &'r dyn UnpackMemory) -> Self {
        Self { memory, bytes: 0 }
    }

    /// Reserves more memory.
    ///
    /// # Errors
    ///
    /// [`UnpackError::Busy`] or [`UnpackError::Memory`].
    pub fn grow(&mut self, bytes: usize) -> Result<(), UnpackError> {
        self.memory.reserve(bytes).map_err(|why| match why {
            NoMemory::Now => UnpackError::Busy,
            NoMemory::Ever => UnpackError::Memory,
        })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back all but `bytes`, which stay reserved for what the caller keeps.
    pub fn keep(mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes = less;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

/// Decompressed text and the reservation of its memory.
pub struct HeldText<'r> {
    pub(super) bytes: Vec<u8>,
    held: Held<'r>,
}

impl<'r> HeldText<'r> {
    /// Creates an empty text.
    pub fn new(memory: &'r dyn UnpackMemory) -> Self {
        Self { bytes: Vec::new(), held: Held::new(memory) }
    }

    /// Returns the text that has been appended.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends to the text. Memory is reserved before it is allocated.
    ///
    /// # Errors
    ///
    /// As for [`Held::grow`].
    pub fn push(&mut self, more: &[u8]) -> Result<(), UnpackError> {
        let (length, capacity) = (self.bytes.len() + more.len(), self.bytes.capacity());
        if length > capacity {
            let step = (capacity / 2).clamp(SMALLEST_STEP, LARGEST_STEP);
            let wanted = length.max(capacity + step);
            self.held.grow(wanted - capacity)?;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}

/// The smallest and the largest amount of memory by which text grows.
const SMALLEST_STEP: usize = 4096;
const LARGEST_STEP: usize = 4 << 20;
/// Bytes that are decompressed at once.
const CHUNK: usize = 16_384;

/// What one received message or file may expand to, over all reports in it.
pub struct UnpackBudget<'r> {
    bytes: usize,
    nodes: usize,
    memory: &'r dyn UnpackMemory,
}

impl<'r> UnpackBudget<'r> {
    /// The budget for input of `received` bytes: [`REPORT_RATIO`] times as many bytes, at most [`REPORT_BYTES`], and
    /// [`JSON_NODES`] JSON values.
    pub fn new(received: usize, memory: &'r dyn UnpackMemory) -> Self {
        Self { bytes: REPORT_BYTES.min(received.saturating_mul(REPORT_RATIO)), nodes: JSON_NODES, memory }
    }

    /// The number of JSON values that are left; the parser counts it down, also for text that it rejects.
    pub fn nodes(&mut self) -> &mut usize {
        &mut self.nodes
    }

    /// The memory that extracted text is charged to.
    pub fn memory(&self) -> &'r dyn UnpackMemory {
        self.memory
    }

    /// Reserves the memory that parsing `json` takes at most, including the resulting report. The estimate counts
    /// whatever can begin a value or a line of a policy.
    ///
    /// # Errors
    ///
    /// As for [`Held::grow`].
    pub fn reserve_for_parsing(&mut self, json: &[u8]) -> Result<Held<'r>, UnpackError> {
        let values = json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{' | b'\\')).count();
        let values = values.min(self.nodes).saturating_add(1);
        // A text in another encoding than UTF-8 is converted first, to at most twice its size.
        let (text, converted) = match std::str::from_utf8(json) {
            Ok(_) if !super::texts::is_wide(json) => (json.len(), 0),
            _ => (json.len() * 2, json.len() * 2),
        };
        // The texts are in the parsed JSON and in the report.
        let bytes = values.saturating_mul(VALUE_BYTES) + text.saturating_mul(2) + converted;
        let mut held = Held::new(self.memory);
        held.grow(bytes)?;
        Ok(held)
    }

    /// Appends at most `most` decompressed bytes to a text. What was read counts, even if the rest can't be read.
    pub(super) fn read(
        &mut self,
        text: &mut HeldText<'r>,
        mut reader: impl Read,
        most: usize,
    ) -> Result<(), UnpackError> {
        let most = most.min(self.bytes);
        let mut chunk = [0; CHUNK];
        let mut count = 0;
        loop {
            // One byte more than allowed shows that there are too many.
            let wanted = (most - count).saturating_add(1).min(CHUNK);
            let piece = chunk.get_mut(..wanted).unwrap_or_default();
            let read = match reader.read(piece) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(UnpackError::Broken(error.to_string())),
            };
            self.bytes = self.bytes.saturating_sub(read);
            count += read;
            if count > most {
                return Err(UnpackError::Bomb(most));
            }
            text.push(chunk.get(..read).unwrap_or_default())?;
        }
    }
}

/// Memory of one JSON value, as parsed and as part of the report, in bytes, without its text.
const VALUE_BYTES: usize = 160;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::Cell;

    /// Memory of a fixed size.
    pub(in super::super) struct Fixed {
        pub total: usize,
        pub used: Cell<usize>,
    }

    impl Fixed {
        pub(in super::super) fn new(total: usize) -> Self {
            Self { total, used: Cell::new(0) }
        }
    }

    impl UnpackMemory for Fixed {
        fn reserve(&self, bytes: usize) -> Result<(), NoMemory> {
            match self.used.get() + bytes {
                used if used <= self.total => {
                    self.used.set(used);
                    Ok(())
                }
                _ if bytes > self.total => Err(NoMemory::Ever),
                _ => Err(NoMemory::Now),
            }
        }

        fn give_back(&self, bytes: usize) {
            self.used.set(self.used.get() - bytes);
        }
    }

    #[test]
    fn memory_is_given_back_with_the_text_and_kept_where_a_result_needs_it() {
        let memory = Fixed::new(10_000);
        let mut text = HeldText::new(&memory);
        text.push(&[b'x'; 5000]).unwrap();
        assert_eq!(memory.used.get(), 5000);
        text.push(b"x").unwrap();
        assert!(memory.used.get() == text.bytes.capacity() && text.bytes.capacity() < 10_000);
        assert_eq!(text.push(&[b'x'; 9999]), Err(UnpackError::Busy));
        assert_eq!(text.push(&[b'x'; 99_999]), Err(UnpackError::Memory));
        drop(text);
        assert_eq!(memory.used.get(), 0);
        let mut held = Held::new(&memory);
        held.grow(600).unwrap();
        held.keep(100);
        assert_eq!(memory.used.get(), 100);
    }

    #[test]
    fn text_in_latin_1_is_reserved_with_its_converted_size() {
        let memory = Fixed::new(1 << 20);
        let mut budget = UnpackBudget::new(1000, &memory);
        let (ascii, latin) = ("a".repeat(1000), [0xe4; 1000]);
        let ascii = budget.reserve_for_parsing(ascii.as_bytes()).unwrap().bytes;
        let latin = budget.reserve_for_parsing(&latin).unwrap().bytes;
        assert_eq!((ascii, latin), (2000 + VALUE_BYTES, 6000 + VALUE_BYTES));
    }
}
