package dtls

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pion/dtls/v3"
	"github.com/pion/logging"

	"github.com/trunktap/trunktap/media/srtp"
)

// exporterLabel is of RFC 5764 section 4.2.
const exporterLabel = "EXTRACTOR-dtls_srtp"

// profiles are the protection profiles of RFC 5764 section 4.1.2 and RFC 7714
// section 14.2.
var profiles = map[srtp.Suite]dtls.SRTPProtectionProfile{
	srtp.AESCM128SHA1x80: dtls.SRTP_AES128_CM_HMAC_SHA1_80,
	srtp.AESCM128SHA1x32: dtls.SRTP_AES128_CM_HMAC_SHA1_32,
	srtp.AEADAES128GCM:   dtls.SRTP_AEAD_AES_128_GCM,
	srtp.AEADAES256GCM:   dtls.SRTP_AEAD_AES_256_GCM,
}

// shake runs one handshake. Without an error the certificate was checked.
func (e *Endpoint) shake(ctx context.Context, a Association) (*dtls.Conn, Keys, error) {
	e.handshakes.Add(1)
	p := e.newPipe()
	refused := fmt.Errorf("%w: the peer showed none", srtp.ErrFingerprint)
	seen := false
	verify := func(der [][]byte) error {
		if seen = len(der) > 0; seen {
			refused = srtp.CheckFingerprint(a.Fingerprints, der[0], e.cfg.SHA1)
		}
		return refused
	}
	conn, err := e.connect(p, a.Role, verify)
	if err != nil {
		return nil, Keys{}, err
	}
	if err = conn.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // its error is that of the handshake
		if seen {
			err = errors.Join(refused, err) // the library's error does not always wrap it
		}
		return nil, Keys{}, errors.Join(err, ctx.Err())
	}
	var keys Keys
	if err = refused; err == nil {
		keys, err = e.export(conn, a)
	}
	if err != nil {
		_ = conn.Close() // the error of before says more
		return nil, Keys{}, err
	}
	return conn, keys, nil
}

// newPipe makes the pipe of a handshake. One that is outdated already sends
// nothing.
func (e *Endpoint) newPipe() *pipe {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &pipe{q: e.queue, send: e.cfg.Send, errs: &e.sendErrors}
	p.detached.Store(e.next != nil)
	e.pipe = p
	return p
}

// connect makes one end of a handshake.
func (e *Endpoint) connect(p *pipe, role srtp.Role, verify func([][]byte) error) (*dtls.Conn, error) {
	var offered []dtls.SRTPProtectionProfile
	for _, s := range e.cfg.Suites {
		offered = append(offered, profiles[s])
	}
	check := func(der [][]byte, _ [][]*x509.Certificate) error { return verify(der) }
	common := []dtls.Option{
		dtls.WithCertificates(e.cfg.Certificate.tls),
		dtls.WithSRTPProtectionProfiles(offered...),
		dtls.WithInsecureSkipVerify(true), // the fingerprint vouches for it, no authority
		dtls.WithVerifyPeerCertificate(check),
		dtls.WithFlightInterval(e.cfg.Retransmit),
		dtls.WithMTU(e.cfg.MTU),
		dtls.WithLoggerFactory(silent()),
	}
	if role == srtp.Active {
		var opts []dtls.ClientOption
		for _, o := range common {
			opts = append(opts, o)
		}
		return dtls.ClientWithOptions(p, peer{}, opts...)
	}
	opts := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
	for _, o := range common {
		opts = append(opts, o)
	}
	return dtls.ServerWithOptions(p, peer{}, opts...)
}

// export takes the keys out of a handshake (RFC 5764 section 4.2).
func (e *Endpoint) export(conn *dtls.Conn, a Association) (Keys, error) {
	profile, _ := conn.SelectedSRTPProtectionProfile()
	at := slices.IndexFunc(e.cfg.Suites, func(s srtp.Suite) bool { return profiles[s] == profile })
	if at < 0 {
		return Keys{}, ErrProfile
	}
	suite := e.cfg.Suites[at]
	state, ok := conn.ConnectionState()
	if !ok {
		return Keys{}, errors.New("read the state of the DTLS connection")
	}
	key, salt := suite.KeyLens()
	material, err := state.ExportKeyingMaterial(exporterLabel, nil, 2*(key+salt))
	if err != nil {
		return Keys{}, fmt.Errorf("export keys: %w", err)
	}
	defer clear(material)
	var made [2]*srtp.Keys // of the active end, of the passive end
	for i := range made {
		b := append(slices.Clone(material[i*key:][:key]), material[2*key+i*salt:][:salt]...)
		line := srtp.Crypto{Tag: 1, Suite: suite, Keys: []srtp.MasterKey{{Key: srtp.NewKey(b)}}}
		clear(b)
		made[i], err = srtp.NewKeys(line)
		line.Wipe()
		if err != nil {
			return Keys{}, err
		}
	}
	out := Keys{Association: a.Number, Suite: suite, Send: made[0], Receive: made[1]}
	if a.Role == srtp.Passive {
		out.Send, out.Receive = out.Receive, out.Send
	}
	return out, nil
}

// silent lets the library log nothing.
func silent() logging.LoggerFactory {
	return &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}
}
