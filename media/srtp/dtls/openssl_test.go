package dtls

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/srtp"
)

// opensslNames are OpenSSL's of the profiles.
var opensslNames = map[srtp.Suite]string{
	srtp.AESCM128SHA1x80: "SRTP_AES128_CM_SHA1_80",
	srtp.AESCM128SHA1x32: "SRTP_AES128_CM_SHA1_32",
	srtp.AEADAES128GCM:   "SRTP_AEAD_AES_128_GCM",
	srtp.AEADAES256GCM:   "SRTP_AEAD_AES_256_GCM",
}

// OpenSSL shakes hands with us in both roles and exports the same keys.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: DTLS is not checked against it")
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=peer", "-days", "2", "-keyout", key, "-out", cert).CombinedOutput()
	if err != nil {
		t.Fatalf("make a certificate: %v\n%s", err, out)
	}
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	print := srtp.FingerprintOf(block.Bytes)
	for _, role := range []srtp.Role{srtp.Active, srtp.Passive} {
		for suite, name := range opensslNames {
			t.Run(fmt.Sprint(role, " ", suite), func(t *testing.T) { testOpenSSL(t, role, suite, name, cert, key, print) })
		}
	}
}

func testOpenSSL(t *testing.T, role srtp.Role, suite srtp.Suite, name, cert, key string, print srtp.Fingerprint) {
	sock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var peerAddr *net.UDPAddr
	p := newParty(t, func(b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if peerAddr == nil {
			return net.ErrClosed
		}
		_, err := sock.WriteToUDP(b, peerAddr)
		return err
	}, func(c *Config) { c.Suites = []srtp.Suite{suite} })
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := sock.ReadFromUDP(b)
			if err != nil {
				return
			}
			mu.Lock()
			peerAddr = from
			mu.Unlock()
			p.Deliver(b[:n])
		}
	}()
	defer func() {
		p.close(t)
		_ = sock.Close() // ends the reader
		<-done
	}()

	k, s := suite.KeyLens()
	common := []string{"-dtls1_2", "-cert", cert, "-key", key, "-use_srtp", name, "-keymatexport", exporterLabel, "-keymatexportlen", strconv.Itoa(2 * (k + s))}
	var args []string
	if role == srtp.Active {
		port := freePort(t)
		mu.Lock()
		peerAddr = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
		mu.Unlock()
		args = append([]string{"s_server", "-Verify", "1", "-accept", fmt.Sprintf("127.0.0.1:%d", port)}, common...)
	} else {
		args = append([]string{"s_client", "-connect", sock.LocalAddr().String()}, common...)
	}
	exported := openssl(t, args)
	p.start(1, role, print)
	keys := p.mustKeys(t)
	compare(t, keys, role, suite, exported())
}

// freePort finds a port that a server may take a moment later.
func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// openssl runs a command and returns what waits for its keying material.
func openssl(t *testing.T, args []string) func() []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	cmd := exec.CommandContext(ctx, "openssl", args...)
	in, err := cmd.StdinPipe() // open until the test is over: at its end openssl hangs up
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
		_ = w.Close()
	}()
	found := make(chan []byte, 1)
	go func() {
		defer close(found)
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if _, text, ok := strings.Cut(lines.Text(), "Keying material: "); ok {
				if b, err := hex.DecodeString(text); err == nil {
					found <- b
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		cancel()
		<-ended
	})
	return func() []byte {
		b, ok := <-found
		if !ok {
			t.Fatalf("openssl exported nothing:\n%s", log.String())
		}
		return b
	}
}

// compare holds our keys against the exported ones (RFC 5764 section 4.2).
func compare(t *testing.T, got Keys, role srtp.Role, suite srtp.Suite, material []byte) {
	t.Helper()
	k, s := suite.KeyLens()
	line := func(i int) *srtp.Keys {
		b := append(bytes.Clone(material[i*k:][:k]), material[2*k+i*s:][:s]...)
		out, err := srtp.NewKeys(srtp.Crypto{Tag: 1, Suite: suite, Keys: []srtp.MasterKey{{Key: srtp.NewKey(b)}}})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	client, server := line(0), line(1)
	if role == srtp.Passive {
		client, server = server, client
	}
	if !got.Send.Same(client) || !got.Receive.Same(server) {
		t.Error("the keys differ from those of openssl")
	}
}
