package bucket

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob/azureblob"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
)

// azureService is Azure Blob Storage.
type azureService struct {
	config
	client *container.Client
}

func openAzure(ctx context.Context, c config) (*Bucket, error) {
	client, err := azureClient(c)
	if err != nil {
		return nil, err
	}
	b, err := azureblob.OpenBucket(ctx, client, nil)
	if err != nil {
		return nil, err
	}
	return newBucket(c, b, &azureService{c, client}), nil
}

func azureClient(c config) (*container.Client, error) {
	o := &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: c.client(newTransport()),
		Retry:     policy.RetryOptions{MaxRetries: int32(c.Attempts - 1), RetryDelay: c.RetryFirst, MaxRetryDelay: retryMost}, //nolint:gosec // at most 20
	}}
	if c.Attempts == 1 {
		o.Retry.MaxRetries = -1 // 0 is the default there
	}
	secret, account, err := azureSecret(c)
	if err != nil {
		return nil, err
	}
	if strings.Contains(secret, "AccountName=") || strings.Contains(secret, "SharedAccessSignature=") {
		return container.NewClientFromConnectionString(secret, c.Bucket, o)
	}
	endpoint := c.Params["endpoint"]
	if endpoint == "" {
		if account == "" {
			return nil, errors.New("no storage account: give it as ?account=… in the URL or as AZURE_STORAGE_ACCOUNT")
		}
		endpoint = "https://" + account + ".blob.core.windows.net"
	}
	url := strings.TrimSuffix(endpoint, "/") + "/" + c.Bucket
	switch {
	case strings.Contains(secret, "sig="):
		return container.NewClientWithNoCredential(url+"?"+strings.TrimPrefix(secret, "?"), o)
	case secret != "":
		key, err := container.NewSharedKeyCredential(account, secret)
		if err != nil {
			return nil, errors.New("the account key is no base64: give the key as the portal shows it")
		}
		return container.NewClientWithSharedKeyCredential(url, key, o)
	}
	cred, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, fmt.Errorf("no credentials found: give storage.credentials, AZURE_STORAGE_KEY or the machine an identity: %w", err)
	}
	return container.NewClient(url, cred, o)
}

// secretBytesMax bounds a file of credentials.
const secretBytesMax = 64 << 10

// azureSecret returns an account key, a connection string or a shared access
// signature; empty: the machine's identity is to be used.
func azureSecret(c config) (secret, account string, err error) {
	account = c.Params["account"]
	if account == "" {
		account = os.Getenv("AZURE_STORAGE_ACCOUNT")
	}
	if c.Credentials == "" {
		for _, name := range []string{"AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"} {
			if secret = os.Getenv(name); secret != "" {
				return secret, account, nil
			}
		}
		return "", account, nil
	}
	text, err := os.ReadFile(c.Credentials)
	if err != nil {
		return "", "", fmt.Errorf("storage.credentials: %w", err)
	}
	secret = strings.TrimSpace(string(text))
	if secret == "" || len(secret) > secretBytesMax || strings.ContainsAny(secret, "\r\n") {
		return "", "", fmt.Errorf("storage.credentials %s: want one line with an account key, a connection string or a shared access signature", c.Credentials)
	}
	return secret, account, nil
}

// azureCreate is the condition that there is none.
func azureCreate(w write) *azblob.AccessConditions {
	if !w.create {
		return nil
	}
	any := azcore.ETagAny
	return &azblob.AccessConditions{ModifiedAccessConditions: &azblob.ModifiedAccessConditions{IfNoneMatch: &any}}
}

func azureLock(w write) (*azblob.ImmutabilityPolicySetting, *time.Time) {
	if w.until.IsZero() {
		return nil, nil
	}
	mode := azblob.ImmutabilityPolicySettingUnlocked
	if w.mode == store.Compliance {
		mode = azblob.ImmutabilityPolicySettingLocked
	}
	return &mode, &w.until
}

func (s *azureService) tier() *azblob.AccessTier {
	if s.Params["class"] == "" {
		return nil
	}
	t := azblob.AccessTier(s.Params["class"])
	return &t
}

func (s *azureService) scope() *azblob.CPKScopeInfo {
	if s.Params["scope"] == "" {
		return nil
	}
	return &azblob.CPKScopeInfo{EncryptionScope: optional(s.Params["scope"])}
}

func (s *azureService) put(ctx context.Context, key string, c content, w write) error {
	o := &blockblob.UploadOptions{
		TransactionalValidation: azblob.TransferValidationTypeMD5(c.md5[:]), Tier: s.tier(), CPKScopeInfo: s.scope(), AccessConditions: azureCreate(w),
		HTTPHeaders: &azblob.HTTPHeaders{BlobContentType: optional(contentType), BlobContentMD5: c.md5[:]},
	}
	o.ImmutabilityPolicyMode, o.ImmutabilityPolicyExpiryTime = azureLock(w)
	out, err := s.client.NewBlockBlobClient(key).Upload(ctx, streaming.NopCloser(c.reader()), o)
	if err != nil {
		return err
	}
	return sameMD5(out.ContentMD5, c)
}

// sameMD5 compares what the service says that it got.
func sameMD5(got []byte, c content) error {
	if !bytes.Equal(got, c.md5[:]) {
		return fmt.Errorf("%w: Content-MD5 %x, want %x", store.ErrCorrupt, got, c.md5)
	}
	return nil
}

// remove deletes a blob with its snapshots and versions. The newest version goes last:
// what is refused on the way leaves the blob as it is.
func (s *azureService) remove(ctx context.Context, key string) error {
	b := s.client.NewBlobClient(key)
	props, err := b.GetProperties(ctx, nil)
	if err != nil {
		return err
	}
	if until := props.ImmutabilityPolicyExpiresOn; until != nil && until.After(time.Now()) || props.LegalHold != nil && *props.LegalHold {
		return azureLockIn(props)
	}
	if props.VersionID != nil {
		if err := s.removeVersions(ctx, key, props, *props.VersionID); err != nil {
			return err
		}
	}
	all := azblob.DeleteSnapshotsOptionTypeInclude
	_, err = b.Delete(ctx, &azblob.DeleteOptions{DeleteSnapshots: &all})
	if err != nil && !bloberror.HasCode(err, bloberror.BlobNotFound) { // it was there: an attempt before had its answer lost
		return azureLocked(err, props)
	}
	if props.VersionID == nil {
		return nil
	}
	return s.removeVersions(ctx, key, props, "") // what was the newest is one of them now
}

// removeVersions deletes the versions of a blob but one, oldest first.
func (s *azureService) removeVersions(ctx context.Context, key string, props azblob.GetPropertiesResponse, but string) error {
	b := s.client.NewBlobClient(key)
	pages := s.client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &key, Include: container.ListBlobsInclude{Versions: true}})
	for pages.More() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, item := range page.Segment.BlobItems {
			if item.Name == nil || *item.Name != key || item.VersionID == nil || *item.VersionID == but {
				continue
			}
			v, err := b.WithVersionID(*item.VersionID)
			if err == nil {
				_, err = v.Delete(ctx, nil)
			}
			if err != nil && !bloberror.HasCode(err, bloberror.BlobNotFound) {
				return azureLocked(err, props)
			}
		}
	}
	return nil
}

func azureLocked(err error, props azblob.GetPropertiesResponse) error {
	if !bloberror.HasCode(err, bloberror.BlobImmutableDueToPolicy) {
		return err
	}
	return azureLockIn(props)
}

// azureLockIn is the lock that the service tells of.
func azureLockIn(props azblob.GetPropertiesResponse) error {
	l := &store.LockedError{}
	if props.ImmutabilityPolicyExpiresOn != nil {
		l.Until = *props.ImmutabilityPolicyExpiresOn
	}
	if props.ImmutabilityPolicyMode != nil {
		l.Mode = store.Governance
		if strings.EqualFold(string(*props.ImmutabilityPolicyMode), "locked") {
			l.Mode = store.Compliance
		}
	}
	return l
}

const hintLockAzure = "switch on version-level immutability for the container: az storage container create … or " +
	"az storage container-rm create --enable-vlw; or leave storage.lock out"

func (s *azureService) prepare(ctx context.Context) error {
	if s.Lock.Mode == "" {
		return nil
	}
	out, err := s.client.GetProperties(ctx, nil)
	if err != nil {
		return err
	}
	if on := out.IsImmutableStorageWithVersioningEnabled; on == nil || !*on {
		return hinted{store.ErrNoLock, hintLockAzure}
	}
	return nil
}

func (*azureService) fault(err error) (hint string, kind error) {
	var resp *azcore.ResponseError
	if !errors.As(err, &resp) {
		var auth *azidentity.AuthenticationFailedError
		if errors.As(err, &auth) || strings.Contains(err.Error(), "DefaultAzureCredential") {
			return "no credentials found: give storage.credentials, AZURE_STORAGE_KEY or the machine an identity", fs.ErrPermission
		}
		return "", nil
	}
	switch bloberror.Code(resp.ErrorCode) {
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted:
		return hintBucket, store.ErrNoBucket
	case bloberror.BlobNotFound:
		return "", recorder.ErrNotFound
	case bloberror.BlobAlreadyExists, bloberror.ConditionNotMet, bloberror.TargetConditionNotMet:
		return hintExists, recorder.ErrExists
	case bloberror.MD5Mismatch, bloberror.InvalidMD5, bloberror.InvalidBlobOrBlock, bloberror.InvalidBlockList:
		return hintCorrupt, store.ErrCorrupt
	case bloberror.BlobImmutableDueToPolicy:
		return "", store.ErrLocked
	case bloberror.AuthenticationFailed:
		if strings.Contains(err.Error(), "Date") {
			return hintClock + "; or " + hintAccess, store.ErrClock
		}
		return hintAccess, fs.ErrPermission
	default: // its status tells
	}
	if resp.StatusCode == http.StatusConflict && strings.Contains(strings.ToLower(resp.ErrorCode), "immutab") {
		return hintLockAzure, store.ErrNoLock
	}
	return status(resp.StatusCode)
}

// azureParts are blocks that are not committed yet. The service forgets them a
// week after the last one.
type azureParts struct {
	s   *azureService
	key string
	w   write
	id  [8]byte  // of this upload: others may stage blocks of the same name
	ids []string // of the blocks so far
}

func (s *azureService) upload(_ context.Context, key string, w write) (parts, error) {
	p := &azureParts{s: s, key: key, w: w}
	random(p.id[:])
	return p, nil
}

func (p *azureParts) part(ctx context.Context, n int, c content) error {
	id := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(p.id[:8:8], uint32(n))) //nolint:gosec // at most store.PartsMax
	out, err := p.s.client.NewBlockBlobClient(p.key).StageBlock(ctx, id, streaming.NopCloser(c.reader()), &blockblob.StageBlockOptions{
		TransactionalValidation: azblob.TransferValidationTypeMD5(c.md5[:]), CPKScopeInfo: p.s.scope(),
	})
	if err != nil {
		return err
	}
	if len(out.ContentMD5) > 0 { // it may leave out what it has checked
		if err := sameMD5(out.ContentMD5, c); err != nil {
			return fmt.Errorf("part %d: %w", n, err)
		}
	}
	p.ids = append(p.ids[:n-1], id)
	return nil
}

func (p *azureParts) complete(ctx context.Context, whole content) error {
	o := &blockblob.CommitBlockListOptions{
		Tier: p.s.tier(), CPKScopeInfo: p.s.scope(), AccessConditions: azureCreate(p.w),
		HTTPHeaders: &azblob.HTTPHeaders{BlobContentType: optional(contentType)},
	}
	o.ImmutabilityPolicyMode, o.ImmutabilityPolicyExpiryTime = azureLock(p.w)
	b := p.s.client.NewBlockBlobClient(p.key)
	if _, err := b.CommitBlockList(ctx, p.ids, o); err != nil {
		var resp *azcore.ResponseError
		if errors.As(err, &resp) && resp.StatusCode == http.StatusBadRequest {
			return retryError{err} // the list has no sum: it may have changed on the way
		}
		return err
	}
	props, err := b.GetProperties(ctx, nil)
	if err != nil {
		return err
	}
	if props.ContentLength == nil || *props.ContentLength != whole.size {
		return fmt.Errorf("%w: another size than %d bytes", store.ErrCorrupt, whole.size)
	}
	return nil
}

// abort leaves the blocks to the service: there is no request that takes them
// away and nothing else.
func (*azureParts) abort(context.Context) error { return nil }

// sweep has nothing to do: the service does it.
func (*azureService) sweep(context.Context, string, time.Time) (int, error) { return 0, nil }
