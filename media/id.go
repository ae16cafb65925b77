package media

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// SessionID derives the id of a session from what identifies its dialog and
// from the time of its INVITE, so that the replay of a capture gives the ids
// of the call it captured: "20261122T163608Z-1f0c9a3b5d7e8f60", sortable by
// start and free of characters that a URL or a file name must quote.
func SessionID(sipCallID, fromTag string, start time.Time) string {
	u := start.UTC().Round(0)
	h := sha256.Sum256([]byte(sipCallID + "\x00" + fromTag + "\x00" + strconv.FormatInt(u.UnixNano(), 10)))
	return u.Format("20060102T150405Z") + "-" + hex.EncodeToString(h[:8])
}

// ConversationID derives the id that all recordings of one call share.
func ConversationID(sipCallID string) string {
	h := sha256.Sum256([]byte("conversation\x00" + sipCallID))
	return hex.EncodeToString(h[:12])
}
