package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob/memblob"
	"google.golang.org/api/option"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/store/bucket"
	"github.com/trunktap/trunktap/recorder/store/s3test"
	"github.com/trunktap/trunktap/recorder/store/storetest"
)

// TestMemory: the bucket in memory that other tests may use.
func TestMemory(t *testing.T) {
	storetest.Run(t, storetest.Harness{Open: func(*testing.T) recorder.Store { return bucket.New(memblob.OpenBucket(nil), store.Options{}) }})
}

// wanted skips what takes a minute to install; see make stores.
func wanted(t *testing.T) {
	t.Helper()
	if os.Getenv("TRUNKTAP_STORES") == "" {
		t.Skip("NOT TESTED: make stores installs the emulators of Azure and Google Cloud Storage and tests against them")
	}
}

// run starts a server on a free port and returns its address.
func run(t *testing.T, command func(host, port string) *exec.Cmd) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	host, port, _ := net.SplitHostPort(addr)
	cmd := command(host, port)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for limit := time.Now().Add(time.Minute); ; {
		resp, err := http.Get("http://" + addr + "/")
		if err == nil {
			_ = resp.Body.Close()
			return addr
		}
		if time.Now().After(limit) {
			t.Fatalf("%s does not answer: %v", cmd.Path, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

const (
	azuriteVersion = "3.37.0"
	azureAccount   = "devstoreaccount1"
	// The key that every Azurite has; it is published in its documentation.
	azureKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

func azurite(t *testing.T) string {
	t.Helper()
	wanted(t)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "trunktap-test", "azurite-"+azuriteVersion)
	script := filepath.Join(dir, "node_modules", "azurite", "dist", "src", "blob", "main.js")
	if _, err := os.Stat(script); err != nil {
		out, err := exec.Command("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", dir, "azurite@"+azuriteVersion).CombinedOutput()
		if err != nil {
			t.Fatalf("npm install azurite: %v: %s", err, out)
		}
	}
	data := t.TempDir()
	return "http://" + run(t, func(host, port string) *exec.Cmd {
		return exec.Command("node", script, "--silent", "--location", data, "--blobHost", host, "--blobPort", port, "--skipApiVersionCheck")
	}) + "/" + azureAccount
}

func azureHarness(t *testing.T) storetest.Harness {
	endpoint := azurite(t)
	cred, err := container.NewSharedKeyCredential(azureAccount, azureKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := container.NewClientWithSharedKeyCredential(endpoint+"/recordings", cred, nil)
	if err == nil {
		_, err = c.Create(context.Background(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(azureKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return harness("", func(bucket, prefix string) string {
		return fmt.Sprintf("azblob://%s/%s?%s", bucket, prefix, url.Values{"account": {azureAccount}, "endpoint": {endpoint}}.Encode())
	}, store.Options{Credentials: file})
}

func TestAzure(t *testing.T) { storetest.Run(t, azureHarness(t)) }

func TestAzureFaults(t *testing.T) { storetest.Faults(t, azureHarness(t)) }

func gcsHarness(t *testing.T) storetest.Harness {
	wanted(t)
	path := s3test.Tool(t, "github.com/fsouza/fake-gcs-server", "v1.56.1")
	endpoint := "http://" + run(t, func(host, port string) *exec.Cmd {
		return exec.Command(path, "-scheme", "http", "-host", host, "-port", port, "-backend", "memory", "-public-host", net.JoinHostPort(host, port))
	})
	c, err := storage.NewClient(context.Background(), option.WithEndpoint(endpoint+"/storage/v1/"), option.WithoutAuthentication())
	if err == nil {
		err = errors.Join(c.Bucket("recordings").Create(context.Background(), "test", nil), c.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return harness("", func(bucket, prefix string) string {
		return fmt.Sprintf("gs://%s/%s?%s", bucket, prefix, url.Values{"endpoint": {endpoint}}.Encode())
	}, store.Options{})
}

func TestGCS(t *testing.T) { storetest.Run(t, gcsHarness(t)) }

func TestGCSFaults(t *testing.T) { storetest.Faults(t, gcsHarness(t)) }
