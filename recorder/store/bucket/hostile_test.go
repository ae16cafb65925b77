package bucket_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/store/bucket"
	"github.com/trunktap/trunktap/recorder/store/s3test"
)

// quick makes faults cheap to wait for.
func quick(srv *s3test.Server) store.Options {
	return store.Options{Credentials: srv.Credentials(), RetryFirst: time.Millisecond, Attempts: 2}
}

func localFile(t *testing.T, body []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "local")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantHint holds what an operator reads: the kind, the store and what to do.
func wantHint(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	var e *store.Error
	if !errors.As(err, &e) || kind != nil && !errors.Is(err, kind) {
		t.Errorf("%v, want %v", err, kind)
		return
	}
	for _, w := range append(words, "store s3://") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") || len(err.Error()) > 1500 {
		t.Errorf("not one readable line: %q", err)
	}
}

// TestStoppedInMidUpload: the server dies between parts and comes back.
func TestStoppedInMidUpload(t *testing.T) {
	srv := s3test.Start(t)
	s := mustOpen(t, srv.URL(), quick(srv))
	ctx := context.Background()
	body := bytes.Repeat([]byte("0123456789abcdef"), (store.PartBytesMin+1000)/16)
	r := bytes.NewReader(body)
	u, err := s.(store.Uploader).NewUpload(ctx, "a/0001.seg")
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Part(ctx, r, 0, store.PartBytesMin); err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	rest := int64(len(body) - store.PartBytesMin)
	wantHint(t, u.Part(ctx, r, store.PartBytesMin, rest), nil, "check the network")
	path := localFile(t, body)
	err = s.Publish(ctx, "a/0002.seg", path)
	wantHint(t, err, nil, "check the network")
	if !store.Temporary(err) {
		t.Errorf("a server that is down is not temporary: %v", err)
	}
	if _, serr := os.Stat(path); serr != nil {
		t.Errorf("the local file: %v", serr)
	}
	wantHint(t, s.Check(ctx), nil, "check the network")

	srv.Restart()
	if err := u.Part(ctx, r, store.PartBytesMin, rest); err != nil {
		t.Fatalf("the same part again: %v", err)
	}
	sum := sha256.Sum256(body)
	if err := u.Complete(ctx, sum[:]); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(ctx, "a/0002.seg", path); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/0001.seg", "a/0002.seg"} {
		if got := read(t, s, name); !bytes.Equal(got, body) {
			t.Errorf("%s: %d bytes, or others", name, len(got))
		}
	}
}

func read(t *testing.T, s recorder.Store, name string) []byte {
	t.Helper()
	b, err := s.Open(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestKilledWhilePublishing: the server is killed at any moment of many
// uploads; what was told to be stored is, and nothing is there by half.
func TestKilledWhilePublishing(t *testing.T) {
	srv := s3test.Start(t)
	o := quick(srv)
	o.Attempts = 1
	s := mustOpen(t, srv.URL(), o)
	body := bytes.Repeat([]byte("x1y2"), 100_000)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed int
	stored := map[string]bool{}
	begun := make(chan struct{}, 64)
	for i := range 16 {
		path := localFile(t, body)
		wg.Go(func() {
			name := fmt.Sprintf("k/%02d", i)
			begun <- struct{}{}
			err := s.Publish(context.Background(), name, path)
			_, serr := os.Stat(path)
			if (serr == nil) != (err != nil) {
				t.Errorf("%s: %v, and the local file: %v", name, err, serr)
			}
			mu.Lock()
			defer mu.Unlock()
			stored[name] = err == nil
			if err != nil {
				failed++
			}
		})
	}
	for range 8 {
		<-begun
	}
	srv.Stop()
	wg.Wait()
	srv.Restart()
	t.Logf("%d of %d refused", failed, len(stored))
	err := s.List(context.Background(), "k/", func(i recorder.BlobInfo) error {
		if got := read(t, s, i.Name); !bytes.Equal(got, body) {
			t.Errorf("%s: %d bytes, want %d", i.Name, len(got), len(body))
		}
		delete(stored, i.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range stored {
		if ok {
			t.Errorf("%s was said to be stored and is not there", name)
		}
	}
}

// TestMisconfigured: each mistake is told with its remedy, and by Prepare at start.
func TestMisconfigured(t *testing.T) {
	srv := s3test.Start(t)
	wrong := filepath.Join(t.TempDir(), "wrong")
	secret := "wrong-secret-that-must-not-be-shown"
	text := "[default]\naws_access_key_id = nobody\naws_secret_access_key = " + secret + "\n"
	if err := os.WriteFile(wrong, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ok := quick(srv)
	bad := ok
	bad.Credentials = wrong
	lock := ok
	lock.Lock = store.Lock{Mode: store.Compliance, For: time.Hour}
	ctx := context.Background()
	for _, c := range []struct {
		name, url string
		o         store.Options
		kind      error
		words     []string
		check     bool // Check and Publish fail with it, too
	}{
		{"no bucket", srv.URLOf("missing", "a b"), ok, store.ErrNoBucket, []string{"make the bucket", "missing/a b"}, true},
		{"credentials", srv.URL(), bad, fs.ErrPermission, []string{"check the credentials"}, true},
		{"no lock", srv.URL(), lock, store.ErrNoLock, []string{"create-bucket --object-lock-enabled-for-bucket"}, false},
		{"nobody there", srv.URLAt("http://127.0.0.1:1", "recordings", ""), ok, nil, []string{"check the network"}, true},
		{"no S3", srv.URLAt("http://"+srv.Addr()+"/somewhere/else", "recordings", ""), ok, nil, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := mustOpen(t, c.url, c.o)
			errs := []error{s.(store.Preparer).Prepare(ctx)}
			if c.check {
				errs = append(errs, s.Check(ctx), s.Publish(ctx, "a", localFile(t, []byte("x"))))
			}
			for _, err := range errs {
				wantHint(t, err, c.kind, c.words...)
				if strings.Contains(fmt.Sprint(err), secret) {
					t.Errorf("the secret is shown: %v", err)
				}
				if c.kind != nil && store.Temporary(err) {
					t.Errorf("taken for temporary: %v", err)
				}
			}
		})
	}
	s := mustOpen(t, srv.URLOf("recordings", "a b/ü"), ok)
	for range 2 {
		if err := s.(store.Preparer).Prepare(ctx); err != nil {
			t.Errorf("Prepare: %v", err)
		}
	}
	if err := s.List(ctx, "", func(i recorder.BlobInfo) error { return fmt.Errorf("Prepare shows %s", i.Name) }); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"s3://bucket/x?region=eu-central-1&colour=red": "no setting \"colour\"",
		"s3://user:geheim@bucket/x":                    "no credentials in it",
		"s3://bucket/x?endpoint=http://a:geheim@host":  "endpoint",
		"s3://b/x":           "3 to 222",
		"s3://bucket/a/../b": "a part is empty",
		"s3://bucket/" + strings.Repeat("x", 300): "at most 256",
		"s3://bucket?etag=maybe":                  "md5 or opaque",
		"s3://bucket?sse=AES256&kms_key=k":        "aws:kms",
		"gs://bucket?region=x":                    "no setting",
		"azblob://container":                      "no storage account",
		"ftp://bucket":                            "want file, s3, gs or azblob",
		"file:///tmp?x=y":                         "absolute/directory",
		"s3://bucket\x7f":                         "storage url",
		"azblob://container/x?account=a&endpoint=ftp://somewhere": "endpoint",
	} {
		_, err := bucket.Open(context.Background(), url, store.Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	for want, o := range map[string]store.Options{
		"governance or compliance": {Lock: store.Lock{Mode: "forever", For: time.Hour}},
		"more than 0":              {Lock: store.Lock{Mode: store.Governance}},
		"without lock.mode":        {Lock: store.Lock{For: time.Hour}},
		"part size":                {PartBytes: 1},
		"attempts":                 {Attempts: -1},
	} {
		_, err := bucket.Open(context.Background(), "s3://bucket?region=x", o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	lock := store.Options{Lock: store.Lock{Mode: store.Governance, For: time.Hour}}
	if _, err := bucket.Open(context.Background(), "file://"+t.TempDir(), lock); err == nil {
		t.Error("a directory with a lock is opened")
	}
}

// answer is a service that says the same to everything.
type answer func(*http.Request) (*http.Response, error)

func (a answer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	return a(r)
}

func says(r *http.Request, code int, body string) *http.Response {
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(body)),
		Header: http.Header{"Date": {time.Now().Add(-3 * time.Hour).UTC().Format(http.TimeFormat)}}, Body: io.NopCloser(strings.NewReader(body)),
	}
}

// TestSaid: what services say is understood.
func TestSaid(t *testing.T) {
	creds := localFile(t, []byte("[default]\naws_access_key_id = a\naws_secret_access_key = b\n"))
	for said, want := range map[string]struct {
		code int
		kind error
		hint string
	}{
		"RequestTimeTooSkewed": {403, store.ErrClock, "NTP"},
		"InvalidAccessKeyId":   {403, fs.ErrPermission, "credentials"},
		"ExpiredToken":         {400, fs.ErrPermission, "credentials"},
		"PermanentRedirect":    {301, nil, "another region"},
		"SlowDown":             {503, nil, "overloaded"},
		"InsufficientStorage":  {507, syscall.ENOSPC, "make room"},
		"BadDigest":            {400, store.ErrCorrupt, "tried again"},
		"WhoKnows":             {507, syscall.ENOSPC, "make room"},
	} {
		n := 0
		s := mustOpen(t, "s3://bucket?endpoint=http://127.0.0.1:1", store.Options{
			Credentials: creds, Attempts: 3, RetryFirst: time.Millisecond,
			Transport: answer(func(r *http.Request) (*http.Response, error) {
				n++
				return says(r, want.code, "<Error><Code>"+said+"</Code><Message>m</Message></Error>"), nil
			}),
		})
		wantHint(t, s.Put(context.Background(), "x", []byte("y")), want.kind, want.hint)
		if n > 3 {
			t.Errorf("%s: %d attempts, at most 3", said, n)
		}
	}
}

// hang answers nothing until the request is given up.
func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestHangs: a service that does not answer is given up within what the limits say.
func TestHangs(t *testing.T) {
	creds := localFile(t, []byte("[default]\naws_access_key_id = a\naws_secret_access_key = b\n"))
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, "s3://bucket?endpoint=http://127.0.0.1:1", store.Options{Credentials: creds, Transport: answer(hang)})
		begun := time.Now()
		err := s.Put(context.Background(), "x", []byte("y"))
		wantHint(t, err, context.DeadlineExceeded, "check the network")
		if d := time.Since(begun); d < 40*time.Second || d > 3*time.Minute {
			t.Errorf("given up after %v", d)
		}
		begun = time.Now()
		if err := s.Check(context.Background()); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 6*time.Second {
			t.Errorf("Check: %v after %v", err, time.Since(begun))
		}
	})
}

// TestCheckIsCheap: whoever asks often asks the service seldom, and nobody waits
// for another who asks.
func TestCheckIsCheap(t *testing.T) {
	creds := localFile(t, []byte("[default]\naws_access_key_id = a\naws_secret_access_key = b\n"))
	synctest.Test(t, func(t *testing.T) {
		n, block := 0, false
		s := mustOpen(t, "s3://bucket?endpoint=http://127.0.0.1:1", store.Options{Credentials: creds, Transport: answer(func(r *http.Request) (*http.Response, error) {
			n++
			if block {
				return hang(r)
			}
			return says(r, 200, "<ListBucketResult></ListBucketResult>"), nil
		})})
		for range 100 {
			if err := s.Check(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if n != 1 {
			t.Errorf("%d requests for 100 checks, want 1", n)
		}
		block = true
		time.Sleep(time.Minute) // the answer is old
		done := make(chan error)
		go func() { done <- s.Check(context.Background()) }()
		synctest.Wait()
		begun := time.Now()
		if err := s.Check(context.Background()); err != nil || time.Since(begun) > 0 {
			t.Errorf("while another asks: %v after %v", err, time.Since(begun))
		}
		if err := <-done; err == nil {
			t.Error("who asked is told that all is well")
		}
		if err := s.Check(context.Background()); err == nil {
			t.Error("the fault is forgotten at once")
		}
	})
}

// TestNoSecrets: a shared access signature is in every URL of Azure's requests,
// and in no error.
func TestNoSecrets(t *testing.T) {
	file := localFile(t, []byte("sv=2024&sig=geheim"))
	s := mustOpen(t, "azblob://container?account=a", store.Options{
		Credentials: file, Attempts: 1,
		Transport: answer(func(r *http.Request) (*http.Response, error) {
			if !strings.Contains(r.URL.RawQuery, "geheim") {
				t.Error("the signature is not used")
			}
			return nil, &os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED}
		}),
	})
	for _, err := range []error{s.Put(context.Background(), "x", nil), s.Check(context.Background()), s.Delete(context.Background(), "x")} {
		if err == nil || strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), "check the network") {
			t.Errorf("%v", err)
		}
	}
}
