package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net/netip"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// siprecTLSConfig is a configuration without trunks: one source, over TLS, that must show
// a certificate.
func siprecTLSConfig(t *testing.T, listen netip.AddrPort, cert, key, clientCA string) liveConfig {
	t.Helper()
	return liveConfig{
		SIP: []string{fmt.Sprintf("tls: {cert: %s, key: %s, client_ca: %s}", cert, key, clientCA)}, Listen: []string{"udp://" + freeUDP(t, liveHost).String()},
		More: fmt.Sprintf("siprec:\n  listen: [\"tls://%s\"]\n  sources:\n    - name: sbc\n      peers: [\"127.0.0.0/8\"]\n      media_address: \"%s\"\n      internal_domains: [pbx.example]\n      recording: {format: wav-pcm16}\n", listen, liveHost),
	}
}

// Recording sessions over TLS: whoever shows no certificate of client_ca is not
// listened to, the others are answered on their connection.
func TestLiveSIPRECOverTLS(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.sign("tap.example", 2)
	clientCert, clientKey := ca.sign("sbc.example", 3)
	listen := freeTCP(t, liveHost)
	d := newLiveDaemon(t, siprecTLSConfig(t, listen, cert, key, ca.file))
	d.start()
	ask := func(method, body string, certs ...tls.Certificate) (textproto.MIMEHeader, error) {
		c, err := tls.Dial("tcp", listen.String(), &tls.Config{RootCAs: ca.pool, ServerName: "tap.example", Certificates: certs, MinVersion: tls.VersionTLS12})
		if err != nil {
			return nil, err
		}
		defer func() { _ = c.Close() }() // the answer has come, or does not
		_ = c.SetDeadline(time.Now().Add(liveReadyLimit))
		_, err = fmt.Fprintf(c, "%s sip:srs@tap.example SIP/2.0\r\nVia: SIP/2.0/TLS sbc.example;branch=z9hG4bK%s\r\nFrom: <sip:sbc@sbc.example>;tag=1\r\nTo: <sip:srs@tap.example>\r\n"+
			"Call-ID: %s\r\nCSeq: 1 %s\r\nContact: <sip:sbc@sbc.example;transport=tls>\r\nRequire: siprec\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s", method, method, method, method, len(body), body)
		if err != nil {
			return nil, err
		}
		r := textproto.NewReader(bufio.NewReader(c))
		for {
			line, err := r.ReadLine()
			if err != nil {
				return nil, err
			}
			head, err := r.ReadMIMEHeader()
			if err != nil || strings.HasPrefix(line, "SIP/2.0 200 ") {
				return head, err
			}
			if !strings.HasPrefix(line, "SIP/2.0 100 ") {
				return nil, fmt.Errorf("%s to %s", line, method)
			}
		}
	}
	if _, err := ask("OPTIONS", ""); err == nil {
		t.Error("a client without a certificate was answered")
	}
	pair := must(tls.LoadX509KeyPair(clientCert, clientKey))(t)
	for method, body := range map[string]string{"OPTIONS": "", "INVITE": "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\n"} {
		head, err := ask(method, body, pair)
		if err != nil || !strings.Contains(head.Get("Contact"), "+sip.srs") || !strings.Contains(head.Get("Contact"), "transport=tls") {
			t.Errorf("%s: %v, %v", method, err, head)
		}
	}
	d.stop()
}
