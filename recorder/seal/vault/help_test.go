package vault

import (
	"testing"

	"github.com/openbao/openbao/api/v2"

	"github.com/trunktap/trunktap/recorder/seal/remote/remotetest"
)

func remoteCert(t *testing.T) (cert, key string) {
	t.Helper()
	f := remotetest.Lay(t)
	return f.Cert, f.Dir + "/cert.key"
}

func responseError(status int, text string) error {
	return &api.ResponseError{StatusCode: status, Errors: []string{text}}
}
