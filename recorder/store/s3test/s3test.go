// Package s3test runs a real S3 server for tests: versitygw on a directory.
package s3test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The server that is tested against.
const (
	Module  = "github.com/versity/versitygw/cmd/versitygw"
	Version = "v1.8.0"
)

const (
	access = "trunktap-test"
	secret = "trunktap-test-secret"
	region = "us-east-1"
	// startMax is generous: machines that run tests stall.
	startMax = 60 * time.Second
)

// Server is a running server with one bucket. It ends with the test.
type Server struct {
	t      testing.TB
	path   string
	root   string
	addr   string
	bucket string
	creds  string

	mu  sync.Mutex // guards all following
	cmd *exec.Cmd  // nil: stopped
	out *bytes.Buffer
}

// Options of a server. The zero value is a bucket without object lock.
type Options struct {
	Bucket string // empty: recordings
	Lock   bool   // the bucket has object lock, and so versions
	Dir    string // where the server keeps its files; empty: a directory of the test
}

// Start starts a server on a free port of the loopback and makes its bucket. It
// skips the test where the server cannot be built.
func Start(t testing.TB) *Server { return StartWith(t, Options{}) }

// StartWith is Start with options.
func StartWith(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{t: t, path: Tool(t, Module, Version), root: o.Dir, bucket: o.Bucket}
	if s.root == "" {
		s.root = t.TempDir()
	}
	if s.bucket == "" {
		s.bucket = "recordings"
	}
	for _, dir := range []string{"data", "versions"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.creds = filepath.Join(s.root, "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", access, secret)
	if err := os.WriteFile(s.creds, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	for n := 0; ; n++ {
		s.addr = freeAddr(t)
		err := s.start()
		if err == nil {
			break
		}
		if n == 3 { // somebody else may have taken the port
			t.Fatalf("versitygw does not start: %v", err)
		}
	}
	s.MakeBucket(s.bucket, o.Lock)
	return s
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it only found a port
	return l.Addr().String()
}

func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return nil
	}
	s.out = &bytes.Buffer{}
	cmd := exec.Command(s.path, "-q", "-p", s.addr, "-r", region, "posix", "--versioning-dir", filepath.Join(s.root, "versions"), filepath.Join(s.root, "data"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+access, "ROOT_SECRET_KEY="+secret)
	cmd.Stdout, cmd.Stderr = s.out, s.out
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(startMax); ; {
		select {
		case err := <-ended:
			return fmt.Errorf("it ended: %w: %s", err, s.out)
		case <-tick.C:
		}
		if s.answers() {
			break
		}
		if time.Now().After(limit) {
			_ = cmd.Process.Kill()
			<-ended //nolint:errcheck // that it was killed
			return fmt.Errorf("no answer within %v: %s", startMax, s.out)
		}
	}
	s.cmd = cmd
	cmd.Cancel = func() error {
		err := cmd.Process.Kill()
		<-ended //nolint:errcheck // with an error: it was killed
		return err
	}
	return nil
}

func (s *Server) answers() bool {
	resp, err := http.Get("http://" + s.addr + "/")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.Header.Get("Server") == "VERSITYGW"
}

// Stop kills the server, in the middle of whatever it does. What it has stays.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Cancel(); err != nil {
		s.t.Errorf("stop versitygw: %v", err)
	}
	s.cmd = nil
}

// Restart starts the server again at the same address, stopping it first when
// it runs.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.start(); err != nil {
		s.t.Fatalf("versitygw does not start again: %v", err)
	}
}

// Addr is host and port.
func (s *Server) Addr() string { return s.addr }

// Dir is where the server keeps buckets, each a directory.
func (s *Server) Dir() string { return filepath.Join(s.root, "data") }

// Credentials is the path of the shared credentials file.
func (s *Server) Credentials() string { return s.creds }

// Bucket is the name of the bucket.
func (s *Server) Bucket() string { return s.bucket }

// URL is the store's URL, for storage.url.
func (s *Server) URL() string { return s.URLOf(s.bucket, "") }

// URLOf is the URL of a bucket and a prefix.
func (s *Server) URLOf(bucket, prefix string) string {
	return s.URLAt("http://"+s.addr, bucket, prefix)
}

// URLAt is URLOf through another endpoint, such as a proxy.
func (s *Server) URLAt(endpoint, bucket, prefix string) string {
	u := url.URL{Scheme: "s3", Host: bucket, Path: "/" + prefix}
	u.RawQuery = url.Values{"region": {region}, "endpoint": {endpoint}}.Encode()
	return u.String()
}

// Client is a client of Amazon's library.
func (s *Server) Client() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + s.addr), UsePathStyle: true, Region: region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: access, SecretAccessKey: secret}, nil
		}),
	})
}

// MakeBucket makes another bucket.
func (s *Server) MakeBucket(name string, lock bool) {
	s.t.Helper()
	in := &s3.CreateBucketInput{Bucket: &name}
	if lock {
		in.ObjectLockEnabledForBucket = aws.Bool(true)
	}
	if _, err := s.Client().CreateBucket(context.Background(), in); err != nil {
		s.t.Fatalf("make bucket %s: %v", name, err)
	}
}
