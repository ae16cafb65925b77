package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrTampered = errors.New("authentication failed: altered, truncated or sealed with another key")
	ErrKey      = errors.New("key not available")

	// Why a key-encryption key is not at hand; both are ErrKey.
	ErrKeyUnreachable = fmt.Errorf("%w: the key service does not answer", ErrKey)
	ErrKeyRevoked     = fmt.Errorf("%w: disabled, destroyed or not permitted", ErrKey)

	// ErrUpgrading says that the catalogue's tables are being changed, which may take long.
	ErrUpgrading = errors.New("the catalogue is being brought up to date after an upgrade: what is recorded meanwhile is listed when that is done")
)

// RefusedError says why a signal was not acted upon: what it asks for cannot be.
type RefusedError struct{ Why string }

// Error returns the reason.
func (e *RefusedError) Error() string { return "refused: " + e.Why }

// Sealer makes and opens the data keys of recordings (envelope encryption).
// Safe for concurrent use.
type Sealer interface {
	// NewKey makes a fresh data key for a recording, wrapped by the active
	// key-encryption key and bound to the recording's id.
	NewKey(ctx context.Context, recording string) (DataKey, error)
	// OpenKey unwraps a data key. ErrKey when its key-encryption key is not at
	// hand, ErrTampered when the wrapping does not fit the recording.
	OpenKey(ctx context.Context, recording string, wrapped WrappedKey) (DataKey, error)
}

// WrappedKey is a data key under a key-encryption key; it is no secret. The zero
// value stands for one that lies in an object of its own.
type WrappedKey struct {
	KEK          string `json:"kek"`                    // names the key-encryption key
	Bytes        []byte `json:"bytes"`                  // opaque
	Intermediate []byte `json:"intermediate,omitempty"` // opaque: the key that wraps Bytes, wrapped by the key-encryption key; nil: that wraps Bytes itself
	Form         int    `json:"form,omitempty"`         // of Bytes; see recorder/seal/FORMAT.md
}

// IsZero tells whether it is no key.
func (w WrappedKey) IsZero() bool { return w.KEK == "" && len(w.Bytes) == 0 }

// DataKey seals the frames of one recording. Safe for concurrent use.
type DataKey interface {
	Wrapped() WrappedKey
	// Seal encrypts and authenticates plaintext and authenticates bind.
	Seal(plaintext, bind []byte) ([]byte, error)
	// Open reverses Seal; ErrTampered when anything differs.
	Open(sealed, bind []byte) ([]byte, error)
	// Close forgets the key as far as the language allows.
	Close()
}

// Blob is one readable object of a store.
type Blob interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// BlobInfo describes an object in a listing.
type BlobInfo struct {
	Name     string // slash separated, relative to the store's root
	Size     int64  // bytes
	Modified time.Time
}

// Store keeps finished objects durably. Names are slash separated paths of
// lower-case letters, digits, '-', '.', '_' and the T and Z of times. Safe for concurrent use.
type Store interface {
	// Publish moves the local file into the store under name: when it returns
	// nil the object survives power loss and the local file is gone.
	// ErrExists when name is taken by other content; the same content again is fine.
	Publish(ctx context.Context, name, localFile string) error
	// Put stores a small object durably, replacing what was there in one step.
	Put(ctx context.Context, name string, content []byte) error
	Open(ctx context.Context, name string) (Blob, error) // ErrNotFound
	// List calls f for every object whose name begins with prefix, in order of name.
	List(ctx context.Context, prefix string, f func(BlobInfo) error) error
	Delete(ctx context.Context, name string) error // ErrNotFound
	// Check tells whether the store can take a recording now.
	Check(ctx context.Context) error
}

// Uploader is a store that can take a copy of a file. Such stores get recordings
// by way of the spool, segments while the call goes on.
type Uploader interface {
	// Upload stores the content of a local file, which stays, durably under name. It
	// may be called again, also by another process: the same content again is fine
	// (and cheap, where the store can tell), other content is ErrExists.
	Upload(ctx context.Context, name, localFile string) error
}

// Row is what the catalogue knows of a recording: its manifest and where it lies.
type Row struct {
	Manifest Manifest
	Prefix   string // folder of the recording in the store
	Store    string // name of the store; empty: the one that has no name
	Spooled  bool   // the store has not all of it yet: what is missing is in the spool of the node that recorded it
	Node     string // that recorded it; empty: one that has no name

	ManifestBytes int64 // size of the manifest's object
	OtherBytes    int64 // of other objects of the recording: neither audio nor manifest
}

// Page is one page of a listing, newest first unless asked otherwise.
type Page struct {
	Rows []Row
	Next string // cursor of the next page; empty on the last

	// Partial: the search was so broad that it ended before the page was full; Next
	// goes on from there.
	Partial bool

	Total     int64 // how many match, when asked for
	TotalMore bool  // there are more than Total
}

// Catalog finds recordings. It can be rebuilt from the store. Safe for concurrent use.
type Catalog interface {
	Save(ctx context.Context, r Row) error // inserts or replaces by id
	Get(ctx context.Context, id string) (Row, error)
	Find(ctx context.Context, q Query) (Page, error)
	Delete(ctx context.Context, id string) error
	Check(ctx context.Context) error // can it be written now
	Close() error
}

// Audio is a run of coded audio of one segment, both channels, at most one
// second long.
type Audio struct {
	RealMS  int64  // position of its first sample in real time
	AudioMS int64  // position in the recording's audio
	SegMS   int64  // position in the segment's audio
	Samples int    // samples per channel at the segment's rate
	Data    []byte // as the segment's codec.Encoder gave it
}

// SegmentInfo describes a segment when it is begun.
type SegmentInfo struct {
	Recording  string // id
	Prefix     string // folder in the store
	N          int
	Format     string // wav-pcm16 | wav-pcmu | wav-pcma | ogg-opus
	SampleRate int    // Hz
	Channels   int
	RealMS     int64
	AudioMS    int64
	Start      time.Time // wall time of its first sample
}

// SinkInfo describes a recording when its sink is opened.
type SinkInfo struct {
	Recording string // id
	Prefix    string // folder in the store
	Storage   string // name of the store; empty: the one that has no name
	Priority  Priority
}

// Priority tells which recordings get gaps first when there is no room for all.
type Priority int8

// Priorities. The zero value is that of a plan which says nothing.
const (
	PriorityLow    Priority = -1
	PriorityNormal Priority = 0
	PriorityHigh   Priority = 1
)

// Sink takes the output of the pipeline of one recording. It is called by one
// goroutine at a time, never by one that a call waits for.
type Sink interface {
	Begin(SegmentInfo) (SegmentWriter, error)
	// Publish stores the final manifest durably after all segments are finished
	// and makes the recording known. It may be called again after an error.
	Publish(*Manifest) error
	// Discard gives up the recording and wipes what was spooled of it.
	Discard() error
	// Close lets go of what is open; what is spooled and not published stays
	// for the next start to recover.
	Close() error
}

// SegmentWriter takes the frames of one segment in order.
type SegmentWriter interface {
	// Write makes the audio and with it the account so far durable. The account
	// is a Manifest of everything known at that time, from which a restart after
	// a crash publishes the recording; nil when nothing but the audio's length
	// changed since the last one. Audio without samples carries an account only.
	// Its Data must not be kept: it is valid during the call.
	Write(a Audio, account *Manifest) error
	// Finish seals the last frame and publishes the file. The result has File,
	// Bytes and SHA256 set.
	Finish(account *Manifest) (Segment, error)
	// Abort takes back a segment that has no audio.
	Abort() error
}
