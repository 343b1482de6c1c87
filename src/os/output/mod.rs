//! What services say. Their pipes are always read, whatever becomes of our own stdout: a slow or dead reader of ours
//! costs lines (counted, and said), never a blocked child and never a supervisor that cannot stop. A reader that is only
//! behind gets a tenth of a second before lines are lost, and none again until it made room. Memory is bounded
//! per service and overall. The last line without a newline is kept: it says why a service died.

mod capture;
mod line;
mod ring;
mod said;
mod split;
mod writer;

pub use capture::Capture;
pub use line::{Level, Line, Shape};
pub use ring::{Kept, Recent, Ring, Rings};
pub use said::{Listener, Said};
pub use split::{Piece, Splitter};
pub use writer::{Source, Writer};

/// What the supervisor calls the ring of a service of which it shows the last lines.
pub type Tail = Ring;
