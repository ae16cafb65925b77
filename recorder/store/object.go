package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Faults of a store that callers branch on. Beside these: recorder.ErrNotFound,
// recorder.ErrExists, fs.ErrPermission, syscall.ENOSPC, context.DeadlineExceeded.
var (
	// ErrLocked says that an object is under retention; see LockedError.
	ErrLocked = errors.New("locked against deletion and change")
	// ErrCorrupt says that the store has, or returned, something else than what
	// was written: it is not taken as stored.
	ErrCorrupt = errors.New("the store has other bytes than were written")
	// ErrNoBucket says that the bucket or container does not exist.
	ErrNoBucket = errors.New("no such bucket")
	// ErrClock says that the service refuses this machine's clock.
	ErrClock = errors.New("the clocks of this machine and of the service differ")
	// ErrNoLock says that a lock is configured and the bucket has none.
	ErrNoLock = errors.New("the bucket has no object lock")
)

// Error is a fault of a store with what an operator can do about it.
type Error struct {
	Op    string // put, open, read, list, delete, check …
	Name  string // the object; empty: the store itself
	Store string // its URL, without secrets
	Hint  string
	Kind  error // one of the above; nil: none of them
	Err   error // what the service said
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Name != "" {
		b.WriteString(" " + e.Name)
	}
	fmt.Fprintf(&b, ": store %s: ", e.Store)
	if e.Kind != nil {
		b.WriteString(e.Kind.Error() + ": ")
	}
	b.WriteString(short(e.Err.Error()))
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// saidBytesMax bounds what is shown of a service's words.
const saidBytesMax = 400

// short makes one line of what services say on many.
func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > saidBytesMax {
		s = strings.ToValidUTF8(s[:saidBytesMax], "") + "…"
	}
	return s
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Kind, e.Err}
}

// LockedError is ErrLocked.
type LockedError struct {
	Name  string
	Until time.Time // zero: the service does not tell, or a hold without an end
	Mode  LockMode  // empty: the service does not tell
}

// Error implements error.
func (e *LockedError) Error() string {
	if e.Until.IsZero() {
		return fmt.Sprintf("%s is %v", e.Name, ErrLocked)
	}
	return fmt.Sprintf("%s is %v until %s", e.Name, ErrLocked, e.Until.UTC().Format(time.RFC3339))
}

// Is implements errors.Is.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// LockMode tells who may shorten a lock.
type LockMode string

// The modes: with governance somebody who has the right to may, with compliance nobody.
const (
	Governance LockMode = "governance"
	Compliance LockMode = "compliance"
)

// LockForMax bounds a lock: compliance cannot be taken back.
const LockForMax = 100 * 366 * 24 * time.Hour

// Lock keeps objects from being changed or deleted, by the service itself.
type Lock struct {
	Mode LockMode      // empty: no lock
	For  time.Duration // from the time of writing
	// Applies tells whether the object of that name is written under the lock. A
	// key that must be destroyed to shred a recording is not to be. Nil: what
	// Publish, Upload and uploads in parts write is, what Put writes is not.
	Applies func(name string) bool
}

// Options are what a store's URL does not say. The zero value is fine.
type Options struct {
	// Credentials is a file with the service's credentials; empty: what the
	// service's own tools use (environment, their files, the machine's role).
	// s3: a shared credentials file; gs: a JSON key; azblob: one line, an
	// account key, a connection string or a shared access signature.
	Credentials string
	Lock        Lock
	PartBytes   int64 // objects above it are uploaded in parts of that size; 0: 8 MiB, 5 MiB is the least
	ReadOnly    bool  // file: nothing is made or checked at Open

	FS           vfs.FS // where local files lie; nil: the machine's
	FreeBytesMin int64  // file: Check fails when fewer bytes are free; 0: no limit

	Attempts       int               // of a request; 0: 4
	RetryFirst     time.Duration     // wait before the second attempt, about; doubled for each other one; 0: 200 ms
	RequestTimeout time.Duration     // of one attempt, beside a second for each 64 KiB it sends; 0: 20 s
	Transport      http.RoundTripper // for tests; nil: a usual one
}

// Limits of requests.
const (
	attemptsMax       = 20
	requestTimeoutMax = 10 * time.Minute
	retryFirstMax     = 5 * time.Second
)

// Validate lists all faults.
func (o Options) Validate() error {
	var errs []error
	switch o.Lock.Mode {
	case "":
		if o.Lock.For != 0 {
			errs = append(errs, errors.New("lock.for without lock.mode: governance or compliance"))
		}
	case Governance, Compliance:
		if o.Lock.For <= 0 || o.Lock.For > LockForMax {
			errs = append(errs, fmt.Errorf("lock.for %v: want more than 0 and at most %v", o.Lock.For, LockForMax))
		}
	default:
		errs = append(errs, fmt.Errorf("lock.mode %q: want governance or compliance", o.Lock.Mode))
	}
	if o.PartBytes != 0 && (o.PartBytes < PartBytesMin || o.PartBytes > partBytesMax) {
		errs = append(errs, fmt.Errorf("part size %d: want %d to %d bytes", o.PartBytes, PartBytesMin, partBytesMax))
	}
	if o.Attempts < 0 || o.Attempts > attemptsMax {
		errs = append(errs, fmt.Errorf("attempts %d: want 1 to %d", o.Attempts, attemptsMax))
	}
	if o.RetryFirst < 0 || o.RetryFirst > retryFirstMax {
		errs = append(errs, fmt.Errorf("wait before the second attempt %v: want at most %v", o.RetryFirst, retryFirstMax))
	}
	if o.RequestTimeout < 0 || o.RequestTimeout > requestTimeoutMax {
		errs = append(errs, fmt.Errorf("request timeout %v: want at most %v", o.RequestTimeout, requestTimeoutMax))
	}
	return errors.Join(errs...)
}

// Limits of uploads in parts.
const (
	PartBytesMin = 5 << 20 // every part but the last has at least so many
	PartsMax     = 10_000  // of one object
	partBytesMax = 256 << 20
)

// FileUploader is a store that takes a copy of a local file.
type FileUploader interface {
	// Upload is Publish that leaves the local file where it is.
	Upload(ctx context.Context, name, localFile string) error
}

// FromLister is a store whose objects can be listed from a name on.
type FromLister interface {
	// ListFrom is List of all objects whose names do not come before from.
	ListFrom(ctx context.Context, from string, f func(recorder.BlobInfo) error) error
}

// Uploader is a store that takes an object while it still grows. Nothing is to
// be seen of it before Complete; what was begun and is never completed is found
// by Sweep.
type Uploader interface {
	// NewUpload begins. errors.ErrUnsupported: this store takes whole objects
	// alone, see FileUploader.
	NewUpload(ctx context.Context, name string) (Upload, error)
	// PartSize is how many bytes a part of an upload should have.
	PartSize() int64
	// Sweep gives up the uploads that were begun and not completed, by anybody,
	// of objects whose names begin with prefix, before a time (zero: whenever), and
	// returns how many.
	Sweep(ctx context.Context, prefix string, before time.Time) (int, error)
}

// Upload is an object on its way. To be used by one goroutine at a time.
type Upload interface {
	// Part uploads the next size bytes of the object, which begin at off in r;
	// nothing of them is kept in memory. They must not change any more. Every
	// part but the last has PartBytesMin bytes or more. off is where the part
	// before ended. After an error the same part may be tried again.
	Part(ctx context.Context, r io.ReaderAt, off, size int64) error
	// Complete makes the object appear. sha256 is that of all parts; when it is
	// another one the upload is given up with ErrCorrupt. ErrExists as for
	// Publish. It may be called again after another error.
	Complete(ctx context.Context, sha256 []byte) error
	// Abort gives it up. No error when it was completed or given up already.
	Abort(ctx context.Context) error
}

// Preparer is a store that is worth a look before the first recording.
type Preparer interface {
	// Prepare tells whether the store can do what the configuration wants of it:
	// it is there, it takes an object once only, and it locks when it is to.
	// Errors are *Error with a hint; context errors and those of the network tell
	// nothing about the configuration.
	Prepare(ctx context.Context) error
}

// Temporary tells whether an error may go away by itself: nobody needs to act
// on it yet.
func Temporary(err error) bool {
	var e *Error
	if err == nil || !errors.As(err, &e) || errors.Is(err, context.Canceled) {
		return false
	}
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, ErrNoBucket), errors.Is(err, ErrClock), errors.Is(err, ErrNoLock), errors.Is(err, ErrLocked),
		errors.Is(err, syscall.ENOSPC):
		return false
	}
	return true
}
