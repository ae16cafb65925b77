package archive

import (
	"context"
	"fmt"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// poisoned is a store that never takes the segments of one recording, by an error
// that tells nothing: a rule of the service, or a proxy on the way to it.
type poisoned struct {
	*remote
	id string
}

func (p poisoned) Upload(ctx context.Context, name, localFile string) error {
	if strings.Contains(name, p.id) {
		return fmt.Errorf("put %s: 400 Bad Request", path.Base(name))
	}
	return p.remote.Upload(ctx, name, localFile)
}

// TestOneRecordingAloneFails: a recording that its store refuses is no reason for
// those behind it to wait for ever.
func TestOneRecordingAloneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, cat := vfstest.NewMem(), newMemCatalog()
		r := newRemote(mem)
		a := mustOpenRemote(t, mem, cat, recorder.Store(poisoned{r, testID}))
		a.StartUploads()
		record(t, a, newTestCall(testID, codec.WAVPCMU))
		time.Sleep(time.Hour) // it has failed often
		const calls = 10
		for i := range calls {
			record(t, a, newTestCall(fmt.Sprintf("%s%02d", testID[:len(testID)-2], 80+i), codec.WAVPCMU))
			time.Sleep(2 * time.Minute)
		}
		synctest.Wait()
		st := a.Uploads()[0]
		if st.Recordings != 1 || st.Stats.Done.Load() != calls {
			t.Errorf("%d recordings wait, %d are done: want 1 and %d", st.Recordings, st.Stats.Done.Load(), calls)
		}
		a.StopUploads(context.Background())
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}
