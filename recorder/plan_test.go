package recorder

import (
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

// TestPrefix: whatever a conversation is called, its folder is a name that every
// store takes, and two conversations have two.
func TestPrefix(t *testing.T) {
	at := time.Date(2026, 11, 22, 23, 59, 0, 0, time.FixedZone("", -3600))
	derived := media.ConversationID("a@b")
	seen := map[string]bool{}
	for _, c := range []string{derived, "ticket 4711", "Ticket 4711", "../../etc", "+49 30 1234", strings.Repeat("x", 300), derived[1:], strings.ToUpper(derived)} {
		p := Prefix(at, c, "id")
		day, folder, ok := strings.Cut(strings.TrimSuffix(p, "/id"), "2026/11/23/")
		if !ok || day != "" || len(folder) != 24 || strings.Trim(folder, "0123456789abcdef") != "" || seen[folder] {
			t.Errorf("%q lies in %s", c, p)
		}
		seen[folder] = true
	}
	if p := Prefix(at, derived, "id"); p != "2026/11/23/"+derived+"/id" {
		t.Errorf("a derived id is kept: %s", p)
	}
	if p := Prefix(at, "", "id"); p != "2026/11/23/id" {
		t.Errorf("without a conversation: %s", p)
	}
}
