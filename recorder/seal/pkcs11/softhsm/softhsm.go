// Package softhsm gives tests a token of their own by SoftHSM.
package softhsm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Module is where Debian puts the library.
const Module = "/usr/lib/softhsm/libsofthsm2.so"

// Token is a token in a directory of its own.
type Token struct {
	Label   string
	PINFile string
	Conf    string // for SOFTHSM2_CONF
	Dir     string // the tokens; renaming it is pulling them
}

// New makes a token and points the library at it, by the environment: no test
// that runs in parallel can do so. Skips where SoftHSM is not installed.
func New(t *testing.T) Token {
	t.Helper()
	tool, err := exec.LookPath("softhsm2-util")
	if _, e := os.Stat(Module); err != nil || e != nil {
		t.Skip("SoftHSM is not installed (apt-get install softhsm2): PKCS#11 is not tested")
	}
	dir := t.TempDir()
	k := Token{Label: "trunktap-test", PINFile: filepath.Join(dir, "pin"), Conf: filepath.Join(dir, "softhsm2.conf"), Dir: filepath.Join(dir, "tokens")}
	if err := os.Mkdir(k.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = true\n", k.Dir)
	if err := os.WriteFile(k.Conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	k.SetPIN(t, "4711")
	t.Setenv("SOFTHSM2_CONF", k.Conf)
	cmd := exec.Command(tool, "--init-token", "--free", "--label", k.Label, "--so-pin", "8888", "--pin", "4711")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a token: %v: %s", err, out)
	}
	return k
}

// SetPIN writes the file with the PIN.
func (k Token) SetPIN(t *testing.T, pin string) {
	t.Helper()
	if err := os.WriteFile(k.PINFile, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}
