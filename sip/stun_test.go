package sip

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
)

// The addresses and the transaction are those of RFC 5769 sections 2.2 and 2.3.
func TestAnswerSTUN(t *testing.T) {
	request, err := hex.DecodeString("000100002112a442b7e7a701bc34d686fa87dfae")
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{
		"192.0.2.1:32853": "0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643",
		"[2001:db8:1234:5678:11:2233:4455:6677]:32853": "010100182112a442b7e7a701bc34d686fa87dfae002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9",
	} {
		if got := hex.EncodeToString(answerSTUN(request, netip.MustParseAddrPort(from))); got != want {
			t.Errorf("%s: %s, want %s", from, got, want)
		}
	}
	for _, other := range [][]byte{nil, request[:19], append(bytes.Clone(request), 0), []byte("OPTIONS sip:a@b SIP/2.0\r\n"), append([]byte{1, 1}, request[2:]...)} {
		if got := answerSTUN(other, netip.MustParseAddrPort("192.0.2.1:1")); got != nil {
			t.Errorf("%x is answered", other)
		}
	}
}
