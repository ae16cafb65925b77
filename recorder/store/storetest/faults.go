package storetest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
)

// Fault is what happens to a request.
type Fault int

// The faults. Those of the first group pass by themselves: another attempt of
// the same operation is to do.
const (
	Refused   Fault = iota // it does not get there
	TimedOut               // the same, after a while
	Failed                 // it is answered with 500 and not acted upon
	Lost                   // it is acted upon and its answer is lost
	LiedAbout              // it is acted upon and answered with 500
	CutOff                 // the connection breaks within its body
	Truncated              // the connection breaks within the answer's body
	Flipped                // a bit of its body changes on the way
	passing

	Altered // the sums in the answer are others
	Gone    // it and all that follow are refused
	faults
)

// String implements fmt.Stringer.
func (f Fault) String() string {
	return []string{"refused", "timed out", "500", "lost answer", "500 and done", "cut off", "truncated answer", "flipped bit", "", "altered sums", "gone"}[f]
}

// Faulty is a transport on which the request At meets a fault.
type Faulty struct {
	Base  http.RoundTripper
	At    int // from 1; 0: none
	Fault Fault

	mu sync.Mutex
	n  int
}

// Requests returns how many there were.
func (f *Faulty) Requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// timeout is a fault that was waited for.
type timeout struct{}

func (timeout) Error() string   { return "i/o timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

// RoundTrip implements http.RoundTripper.
func (f *Faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.n++
	hit := f.At == f.n || f.At > 0 && f.Fault == Gone && f.n > f.At
	f.mu.Unlock()
	if !hit {
		return f.Base.RoundTrip(r)
	}
	switch f.Fault {
	case Refused, Gone:
		return nil, drop(r, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED})
	case TimedOut:
		return nil, drop(r, &net.OpError{Op: "read", Net: "tcp", Err: timeout{}})
	case Failed:
		return internal(r), drop(r, nil)
	case CutOff:
		if r.Body == nil {
			return nil, &net.OpError{Op: "write", Net: "tcp", Err: syscall.ECONNRESET}
		}
		r = r.Clone(r.Context())
		r.Body = &cutBody{r.Body, r.ContentLength / 2}
	case Flipped:
		r = r.Clone(r.Context())
		if r.Body != nil {
			r.Body = &flippedBody{r.Body, r.ContentLength / 2}
		}
	default: // the answer is changed
	}
	resp, err := f.Base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	return f.answer(r, resp)
}

// answer changes what comes back.
func (f *Faulty) answer(r *http.Request, resp *http.Response) (*http.Response, error) {
	switch f.Fault {
	case Lost:
		_ = resp.Body.Close()
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	case LiedAbout:
		_ = resp.Body.Close()
		return internal(r), nil
	case Truncated:
		resp.Body = &cutBody{resp.Body, resp.ContentLength / 2}
	case Altered:
		alter(resp.Header)
	default: // the request was changed
	}
	return resp, nil
}

// alter puts other sums of the same form in place of those that are there.
func alter(h http.Header) {
	for name := range h {
		switch {
		case name == "Etag":
			h.Set(name, `"00000000000000000000000000000000"`)
		case name == "Content-Md5":
			h.Set(name, base64.StdEncoding.EncodeToString(make([]byte, md5.Size)))
		case strings.HasPrefix(name, "X-Amz-Checksum-Sha256"):
			h.Set(name, base64.StdEncoding.EncodeToString(make([]byte, sha256.Size)))
		case strings.HasPrefix(name, "X-Amz-Checksum-Crc32c"):
			h.Set(name, base64.StdEncoding.EncodeToString(make([]byte, 4)))
		}
	}
}

// drop closes the body as a transport does.
func drop(r *http.Request, err error) error {
	if r.Body != nil {
		_ = r.Body.Close()
	}
	return err
}

func internal(r *http.Request) *http.Response {
	return &http.Response{
		Status: "500 Internal Server Error", StatusCode: http.StatusInternalServerError, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r,
	}
}

type cutBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (c *cutBody) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

type flippedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *flippedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left >= 0 && b.left < int64(n) {
		p[b.left] ^= 1
	}
	b.left -= int64(n)
	return n, err
}

// deed is an operation of which faults must leave all or nothing.
type deed struct {
	name string
	body []byte
	do   func(s recorder.Store, name, path string, body []byte) error
	// undone tells whether the operation takes the object away.
	undone bool
}

func deeds() []deed {
	ctx := context.Background()
	return []deed{
		{"Publish", content(100_000), func(s recorder.Store, name, path string, _ []byte) error { return s.Publish(ctx, name, path) }, false},
		{"Put", content(1000), func(s recorder.Store, name, _ string, body []byte) error { return s.Put(ctx, name, body) }, false},
		{"Upload", content(50_000), uploadAll, false},
		{"Open", content(200_000), readAll, false},
		{"Delete", content(1000), func(s recorder.Store, name, _ string, _ []byte) error { return s.Delete(ctx, name) }, true},
	}
}

func uploadAll(s recorder.Store, name, path string, body []byte) error {
	ctx := context.Background()
	u, err := s.(store.Uploader).NewUpload(ctx, name)
	if errors.Is(err, errors.ErrUnsupported) {
		return s.(store.FileUploader).Upload(ctx, name, path)
	}
	if err != nil {
		return err
	}
	if err := u.Part(ctx, bytes.NewReader(body), 0, int64(len(body))); err != nil {
		return errors.Join(err, u.Abort(ctx))
	}
	sum := sha256.Sum256(body)
	return u.Complete(ctx, sum[:])
}

func readAll(s recorder.Store, name, _ string, body []byte) error {
	b, err := s.Open(context.Background(), name)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err == nil && !bytes.Equal(got, body) {
		panic(fmt.Sprintf("%s: other bytes were read, without an error", name))
	}
	return err
}

// Faults does each operation with each fault at each of its requests.
func Faults(t *testing.T, h Harness) {
	if h.OpenWith == nil {
		t.Fatal("OpenWith is needed")
	}
	for _, d := range deeds() {
		t.Run(d.name, func(t *testing.T) {
			for f := range faults {
				if f == passing {
					continue
				}
				hit := true
				for n := 1; hit; n++ {
					tr := &Faulty{Base: http.DefaultTransport, At: n, Fault: f}
					d.check(t, h, tr)
					hit = tr.Requests() >= n
				}
			}
		})
	}
}

// check does the operation once, on a name of its own.
func (d deed) check(t *testing.T, h Harness, f *Faulty) {
	t.Helper()
	ctx := context.Background()
	what := fmt.Sprintf("%s at request %d", f.Fault, f.At)
	name := strings.ToLower(fmt.Sprintf("%s/%d-%d", d.name, f.Fault, f.At))
	good := h.OpenWith(t, &Faulty{Base: http.DefaultTransport})
	before := d.name == "Open" || d.undone
	if before {
		if err := good.Put(ctx, name, d.body); err != nil {
			t.Fatalf("%s: before: %v", what, err)
		}
	}
	path := h.local(t, string(d.body))
	err := d.do(h.OpenWith(t, f), name, path, d.body)
	hit := f.Requests() >= f.At
	if hit && f.Fault < passing && err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if !hit && err != nil {
		t.Fatalf("%s: there was no fault and still: %v", what, err)
	}
	if err != nil && d.name == "Publish" && h.gone(path) {
		t.Errorf("%s: refused, and the local file is gone: %v", what, err)
	}
	if err != nil && f.Fault == Altered && !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%s: %v, want ErrCorrupt", what, err)
	}
	d.state(t, good, name, what, err)
	if err == nil {
		return
	}
	if err := d.do(good, name, path, d.body); err != nil && !(d.undone && errors.Is(err, recorder.ErrNotFound)) {
		t.Errorf("%s: again, without a fault: %v", what, err)
	}
	d.state(t, good, name, what+", again", nil)
}

// state looks whether the object is there whole or not at all, as err tells.
func (d deed) state(t *testing.T, s recorder.Store, name, what string, err error) {
	t.Helper()
	b, oerr := s.Open(context.Background(), name)
	switch {
	case errors.Is(oerr, recorder.ErrNotFound):
		if err == nil && !d.undone {
			t.Errorf("%s: done, and the object is not there", what)
		}
		return
	case oerr != nil:
		t.Fatalf("%s: %v", what, oerr)
	case err == nil && d.undone:
		t.Errorf("%s: deleted, and the object is there", what)
	}
	defer func() { _ = b.Close() }()
	if got, rerr := io.ReadAll(io.NewSectionReader(b, 0, b.Size())); rerr != nil || !bytes.Equal(got, d.body) {
		t.Errorf("%s: %d bytes are there, want %d: %v", what, len(got), len(d.body), rerr)
	}
}
