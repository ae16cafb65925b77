package seal_test

import (
	"path/filepath"
	"testing"

	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/kektest"
)

func TestLocalConformance(t *testing.T) {
	kektest.Run(t, func(t *testing.T) kektest.Harness {
		path := filepath.Join(t.TempDir(), "keys.json")
		return kektest.Harness{Open: func(t *testing.T) seal.KEK {
			l, err := seal.OpenLocal(seal.LocalConfig{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			return l.KEK()
		}, Lag: 1, InProcess: true}
	})
}
