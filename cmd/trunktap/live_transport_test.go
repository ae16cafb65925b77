package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	a.key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key))(t)
	a.cert = must(x509.ParseCertificate(der))(t)
	a.pool.AddCert(a.cert)
	a.file = filepath.Join(a.dir, "ca.pem")
	a.write(a.file, "CERTIFICATE", der)
	return a
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// sign writes a certificate of a name with its key.
func (a *authority) sign(name string, serial int64) (cert, key string) {
	a.t.Helper()
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key))(a.t)
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	a.write(cert, "CERTIFICATE", der)
	a.write(key, "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(k))(a.t))
	return cert, key
}

// peer is the TLS of an agent that demands certificates of others.
func (a *authority) peer(name string, serial int64) *tls.Config {
	a.t.Helper()
	pair := must(tls.LoadX509KeyPair(a.sign(name, serial)))(a.t)
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		ServerName: "tap.example", MinVersion: tls.VersionTLS12,
	}
}

// TestLiveTLS: a carrier and a PBX over TLS, each with a certificate of its own and
// demanding ours; the carrier's must have its name. Calls pass both ways; after
// SIGHUP new connections see the new certificate.
func TestLiveTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	ca := newAuthority(t)
	cert, key := ca.sign("tap.example", 10)
	carrierCert, carrierKey := ca.sign("tap-carrier.example", 11)
	at := freeTCP(t, liveHost)
	tc := liveTrunkConfig{Name: "tls", Format: recorder.FormatWAVPCM16}
	var agents [2]*siptest.Agent
	names := [2]string{"carrier.example", "pbx.example"}
	for side, addr := range liveTrunk[0] {
		agents[side] = liveAgent(t, siptest.Config{
			Addr: netip.AddrPortFrom(addr, 0), Transport: "tls", TLS: ca.peer(names[side], int64(20+side)),
		})
		keys := []string{fmt.Sprintf("tls: {ca: %s, peer_name: %s}", ca.file, names[side])}
		if side == 0 {
			keys = []string{fmt.Sprintf("tls: {ca: %s, peer_name: %s, cert: %s, key: %s}", ca.file, names[side], carrierCert, carrierKey)}
		}
		tc.Sides[side] = liveSide{Peer: addr, NextHop: "sip:" + agents[side].Addr().String() + ";transport=tls", Media: liveHost, SRTP: keys}
	}
	d := newLiveDaemon(t, liveConfig{
		Listen: []string{"tls://" + at.String()}, Trunks: []liveTrunkConfig{tc},
		SIP: []string{fmt.Sprintf("tls: {cert: %s, key: %s, client_ca: %s}", cert, key, ca.file)},
	})
	d.start()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	calls := func() {
		t.Helper()
		in := d.call(agents, [2]float64{440, 1000})
		out := d.call([2]*siptest.Agent{agents[1], agents[0]}, [2]float64{440, 1000})
		if err := errors.Join(in.bye(ctx), out.bye(ctx)); err != nil {
			t.Error(err)
		}
	}
	calls()

	// Who has another name than the trunk says is not let in, whatever its authority.
	wrong := liveAgent(t, siptest.Config{
		Addr: netip.AddrPortFrom(liveTrunk[0][0], 0), Transport: "tls", TLS: ca.peer("other.example", 30), T1: 50 * time.Millisecond,
	})
	if _, err := wrong.Call(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{}); err == nil {
		t.Error("a carrier with another name made a call")
	}

	ca.sign("tap.example", 12) // in the same files
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	client := ca.peer("carrier.example", 40)
	d.within(liveReadyLimit, "new connections see the new certificate", func() error {
		from := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(liveTrunk[0][0], 0))} // as a peer
		conn, err := tls.DialWithDialer(from, "tcp", at.String(), client)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // nothing was sent
		if n := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); n != 12 {
			return fmt.Errorf("certificate %d", n)
		}
		return nil
	})
	calls()
	if n := len(d.recordings(4)); n != 4 {
		t.Errorf("%d recordings", n)
	}
	var seen []string
	for _, a := range agents {
		for _, tr := range a.Traces() {
			if line, _, _ := strings.Cut(string(tr.Raw), "\r\n"); !tr.Sent && strings.HasPrefix(line, "INVITE ") && !strings.Contains(string(tr.Raw), "SIP/2.0/TLS ") {
				seen = append(seen, line)
			}
		}
	}
	if len(seen) > 0 {
		t.Errorf("not over TLS: %v", slices.Compact(seen))
	}
	d.stop()
}
