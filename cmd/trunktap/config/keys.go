package config

import (
	"fmt"
	"slices"
	"time"
)

// ModeNone is the mode in which recordings are not sealed.
const ModeNone = "none"

// Keys is where key-encryption keys come from.
type Keys struct {
	Mode        string   // local | pkcs11 | vault | remote | aws-kms | gcp-kms | azure | none
	IUnderstand bool     // of mode none
	File        string   // of mode local
	Former      []string // modes that only open what they once sealed
	Rotate      Interval // between two rotations; zero: none
	RotatedFile string   // when that was last; follows from where the catalogue is

	OnUnreachable string // continue | stop
	OnRevoked     string // continue | stop
	Cache         KeyCache

	Timeout time.Duration // of one request to a key service
	Tries   int           // of a request that fails for what may pass

	PKCS11 KeysPKCS11
	Vault  KeysVault
	Remote KeysRemote
	AWS    KeysAWS
	GCP    KeysGCP
	Azure  KeysAzure
}

// KeyCache is for how long is kept what a key service has given.
type KeyCache struct {
	Renew time.Duration // after which the intermediate key is replaced
	For   time.Duration // that recording continues while the service does not answer
	Check time.Duration // between two questions whether the key may still be used
}

// KeysPKCS11 is a key in an HSM.
type KeysPKCS11 struct {
	Module, TokenLabel, TokenSerial, PINFile, Label, Mechanism string
	Create                                                     bool
	Sessions                                                   int
	Refresh                                                    time.Duration
}

// KeysVault is a key of the transit engine.
type KeysVault struct {
	Address, Namespace, Mount, Key, CAFile, CertFile, CertKey   string
	Auth, AuthMount, TokenFile, RoleID, SecretID, Role, JWTFile string
}

// KeysRemote is a key manager that speaks our protocol.
type KeysRemote struct {
	URL, Client, KeyFile, ServerKeys, CAFile, CertFile, CertKey string
}

// KeysAWS is a key of AWS KMS.
type KeysAWS struct{ Region, Key, Endpoint, Profile, CredentialsFile, CAFile string }

// KeysGCP is a key of Google Cloud KMS.
type KeysGCP struct{ Key, Endpoint, CredentialsFile string }

// KeysAzure is a key of Azure Key Vault or a Managed HSM.
type KeysAzure struct{ URL, Key, Algorithm, ClientID, CAFile string }

// keyServices are the modes whose keys lie elsewhere; those of the second list
// make versions of their keys by themselves alone.
var (
	keyServices   = []string{"pkcs11", "vault", "remote", "aws-kms", "gcp-kms", "azure"}
	selfRotating  = []string{"aws-kms", "gcp-kms"}
	keyModes      = append(append([]string{"local"}, keyServices...), ModeNone)
	keyRenewMin   = time.Second
	keyForMax     = 366 * 24 * time.Hour
	keyRotateMin  = time.Second
	keyFormersMax = len(keyModes)
)

func keysTable(k *Keys) *node {
	return key("keys", "Where the keys come from that recordings are sealed with. See docs/keys.md and docs/keys-providers.md.", object(append([]*node{
		key("mode", "The kind of key source. none: recordings are not sealed; whoever can read the store can hear them.",
			choice(&k.Mode, keyModes, nil)).is("local"),
		key("i_understand", "Of mode none, which is refused without it.", boolean(&k.IUnderstand)).is("false"),
		key("file", "The keys of mode local; made at the first start. Without the key: keys.json beside the catalogue. In other modes it opens what was sealed before.", path(&k.File)).
			shown("/var/lib/trunktap/keys.json"),
		key("former", "Modes that were configured before: they open what they sealed, by their blocks here. Mode local needs no entry.",
			list(&k.Former, 0, keyFormersMax, func(s *string) *node { return choice(s, keyModes, nil) })).shown("[vault]"),
		key("rotate", "How often a new key is made, of modes local, pkcs11, vault, remote and azure; the other services do that themselves. Without the key: by command alone.",
			interval(&k.Rotate, keyRotateMin)).shown("monthly"),
		key("on_unreachable", "While the key service does not answer. continue: recording goes on under the key that is there, for cache.for. stop: it pauses at once; calls go on.",
			choice(&k.OnUnreachable, []string{"continue", "stop"}, nil)).is("continue"),
		key("on_revoked", "When it answers that the key may not be used. continue: as above, but what is recorded may never be readable. stop: it pauses at once; calls go on.",
			choice(&k.OnRevoked, []string{"continue", "stop"}, nil)).is("stop"),
		key("cache", "What is kept of a key service's keys, in locked memory.", object(
			key("renew", "The key under which recordings begin is replaced so often.", duration(&k.Cache.Renew, keyRenewMin, 30*24*time.Hour)).is("1h"),
			key("for", "How long recording continues without an answer that the key may be used.", duration(&k.Cache.For, keyRenewMin, keyForMax)).is("24h"),
			key("check", "How often the service is asked whether it may; so soon a revocation acts.", duration(&k.Cache.Check, keyRenewMin, time.Hour)).is("1m"),
		)),
	}, serviceFields(k)...)...)).atStart()
}

// checkKeys demands what modes need of each other.
func (d *decoder) checkKeys(c *Config) {
	k := &c.Keys
	switch {
	case k.Mode == ModeNone && !k.IUnderstand:
		d.faultAt("keys.mode", "recordings would not be sealed: whoever can read the store could hear them, and whoever can write it could make some up",
			"with i_understand: true beside it")
	case k.Mode != ModeNone && k.Mode != "" && k.IUnderstand:
		d.faultAt("keys.i_understand", "it belongs to mode none, and mode "+k.Mode+" is configured", "with mode: none alone")
	}
	if k.Rotate != (Interval{}) && (k.Mode == ModeNone || slices.Contains(selfRotating, k.Mode)) {
		problem := "mode " + k.Mode + " rotates its keys itself, by its own settings"
		if k.Mode == ModeNone {
			problem = "mode none has no keys"
		}
		d.faultAt("keys.rotate", problem, "with mode local, pkcs11, vault, remote or azure")
	}
	for i, f := range k.Former {
		at := fmt.Sprintf("keys.former[%d]", i)
		switch {
		case f == "":
		case f == k.Mode:
			d.faultAt(at, f+" is keys.mode", "another mode, which was configured before")
		case slices.Contains(k.Former[:i], f):
			d.faultAt(at, f+" stands there twice", "once")
		}
	}
}

// serviceFields are the blocks of key services. What a block needs is checked by
// the package of its service.
func serviceFields(k *Keys) []*node {
	return []*node{
		key("timeout", "How long one request to a key service may take.", duration(&k.Timeout, 100*time.Millisecond, 2*time.Minute)).is("5s"),
		key("tries", "Requests in all, when a service does not answer; with pauses between them that grow.", integer(&k.Tries, 1, 10)).is("3"),
		pkcs11Table(&k.PKCS11), vaultTable(&k.Vault), remoteTable(&k.Remote), awsTable(&k.AWS), gcpTable(&k.GCP), azureTable(&k.Azure),
	}
}

func pkcs11Table(k *KeysPKCS11) *node {
	return key("pkcs11", "Mode pkcs11: an AES-256 key that never leaves an HSM.", object(
		key("module", "The library of the HSM's vendor.", path(&k.Module)).shown("/usr/lib/softhsm/libsofthsm2.so"),
		key("token_label", "Which token.", text(&k.TokenLabel)).shown("recordings"),
		key("token_serial", "Which token, by its serial number; beside the label or instead of it.", text(&k.TokenSerial)).shown("a1b2c3d4"),
		key("pin_file", "A file with the PIN of the token's user, of mode 0600.", path(&k.PINFile)).shown("/etc/trunktap/hsm-pin"),
		key("label", "Of the key; rotations make label.v1, label.v2 and so on.", text(&k.Label)).is("trunktap"),
		key("create", "Make the key when there is none.", boolean(&k.Create)).is("false"),
		key("mechanism", "How it wraps. auto: AES-GCM where the token has it, else key wrap (RFC 5649).",
			choice(&k.Mechanism, []string{"auto", "aes-gcm", "aes-key-wrap-pad"}, nil)).is("auto"),
		key("sessions", "Sessions with the token at once.", integer(&k.Sessions, 1, 64)).is("4"),
		key("refresh", "How soon a key that another node made wraps here too.", duration(&k.Refresh, time.Second, time.Hour)).is("30s"),
	))
}

func vaultTable(k *KeysVault) *node {
	return key("vault", "Mode vault: the transit engine of HashiCorp Vault or OpenBao.", object(
		key("address", "Of the server, https.", text(&k.Address)).shown("https://vault.example:8200"),
		key("namespace", "Of the mount. Without the key: the root.", text(&k.Namespace)).shown("voice"),
		key("mount", "Where the transit engine is.", text(&k.Mount)).is("transit"),
		key("key", "Name of the transit key.", text(&k.Key)).is("trunktap"),
		key("ca_file", "Who vouches for the server. Without the key: the machine's authorities.", path(&k.CAFile)).shown("/etc/trunktap/vault-ca.pem"),
		key("cert_file", "Our certificate.", path(&k.CertFile)).shown("/etc/trunktap/vault.pem"),
		key("cert_key", "Its private key.", path(&k.CertKey)).shown("/etc/trunktap/vault.key"),
		key("auth", "How to log in.", choice(&k.Auth, []string{"token", "approle", "kubernetes", "cert"}, nil)).is("token"),
		key("auth_mount", "Where the login is. Without the key: the name of auth.", text(&k.AuthMount)).shown("approle"),
		key("token_file", "Of auth token; read again when the token is refused.", path(&k.TokenFile)).shown("/etc/trunktap/vault-token"),
		key("role_id", "Of auth approle.", text(&k.RoleID)).shown("4f1a2b3c"),
		key("secret_id_file", "Of auth approle.", path(&k.SecretID)).shown("/etc/trunktap/vault-secret-id"),
		key("role", "Of auth kubernetes and cert.", text(&k.Role)).shown("recorder"),
		key("jwt_file", "Of auth kubernetes. Without the key: that of the pod.", path(&k.JWTFile)).shown("/var/run/secrets/token"),
	))
}

func remoteTable(k *KeysRemote) *node {
	return key("remote", "Mode remote: a key manager of your own; see docs/keyserver.md.", object(
		key("url", "Of the key manager, https.", text(&k.URL)).shown("https://keys.example:8443"),
		key("client", "What it calls this node.", text(&k.Client)).is("recorder"),
		key("key_file", "Our Ed25519 private key, PEM, of mode 0600.", path(&k.KeyFile)).shown("/etc/trunktap/client.key"),
		key("server_keys", "The public keys with which it signs its answers, PEM.", path(&k.ServerKeys)).shown("/etc/trunktap/signing.pub"),
		key("ca_file", "Who vouches for its certificate. Without the key: the machine's authorities.", path(&k.CAFile)).shown("/etc/trunktap/keys-ca.pem"),
		key("cert_file", "Our certificate, where it asks for one.", path(&k.CertFile)).shown("/etc/trunktap/keys.pem"),
		key("cert_key", "Its private key.", path(&k.CertKey)).shown("/etc/trunktap/keys.key"),
	))
}

func awsTable(k *KeysAWS) *node {
	return key("aws-kms", "Mode aws-kms. Credentials are found as the tools of AWS find them.", object(
		key("region", "Where the key is.", text(&k.Region)).shown("eu-central-1"),
		key("key", "Its id, alias/NAME or ARN.", text(&k.Key)).is("alias/trunktap"),
		key("endpoint", "Of a VPC endpoint. Without the key: the region's.", text(&k.Endpoint)).shown("https://vpce-1.kms.eu-central-1.vpce.amazonaws.com"),
		key("profile", "Of the shared configuration.", text(&k.Profile)).shown("recorder"),
		key("credentials_file", "Without the key: the usual one.", path(&k.CredentialsFile)).shown("/etc/trunktap/aws"),
		key("ca_file", "Who vouches for the endpoint. Without the key: the machine's authorities.", path(&k.CAFile)).shown("/etc/trunktap/aws-ca.pem"),
	))
}

func gcpTable(k *KeysGCP) *node {
	return key("gcp-kms", "Mode gcp-kms. Credentials are found as the tools of Google find them.", object(
		key("key", "Its resource name, without a version.", text(&k.Key)).shown("projects/p/locations/europe-west3/keyRings/r/cryptoKeys/trunktap"),
		key("endpoint", "host:port, of Google or of a region.", text(&k.Endpoint)).is("cloudkms.googleapis.com:443"),
		key("credentials_file", "Of a service account. Without the key: as found.", path(&k.CredentialsFile)).shown("/etc/trunktap/gcp.json"),
	))
}

func azureTable(k *KeysAzure) *node {
	return key("azure", "Mode azure: Key Vault or a Managed HSM. Credentials are found as the tools of Azure find them.", object(
		key("url", "Of the vault.", text(&k.URL)).shown("https://recordings.vault.azure.net"),
		key("key", "Its name.", text(&k.Key)).is("trunktap"),
		key("algorithm", "RSA-OAEP-256 for RSA keys, A256KW for symmetric ones of a Managed HSM.",
			choice(&k.Algorithm, []string{"RSA-OAEP-256", "A256KW"}, nil)).is("RSA-OAEP-256"),
		key("client_id", "Of a managed identity that was assigned.", text(&k.ClientID)).shown("00000000-0000-0000-0000-000000000000"),
		key("ca_file", "Who vouches for the vault. Without the key: the machine's authorities.", path(&k.CAFile)).shown("/etc/trunktap/azure-ca.pem"),
	))
}
