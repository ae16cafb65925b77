package vault

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/trunktap/trunktap/recorder/seal/service"
)

// Ways to log in.
const (
	AuthToken      = "token"
	AuthAppRole    = "approle"
	AuthKubernetes = "kubernetes"
	AuthCert       = "cert"
)

// jwtDefault is where Kubernetes puts the token of a pod's service account.
const jwtDefault = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// Config says which server and key to use.
type Config struct {
	Address   string // https://host:port
	Namespace string // of Vault Enterprise or OpenBao; "": the root
	Mount     string // of the transit engine; "": transit
	Key       string // name of the key: letters, digits, . _ -; of a type that has associated data
	CAFile    string // who vouches for the server's certificate; "": the machine's authorities
	CertFile  string // our certificate and its key; both or none
	CertKey   string

	Auth      string // token, approle, kubernetes or cert
	AuthMount string // "": as the method is called
	TokenFile string // of token; read again when the token is refused, so that an agent may renew it
	RoleID    string // of approle
	SecretID  string // of approle: the file that holds the secret id
	Role      string // of kubernetes and cert
	JWTFile   string // of kubernetes; "": that of the pod

	Attempts service.Attempts
}

var (
	keyPattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	mountPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`)
)

func (c Config) mount() string {
	if c.Mount == "" {
		return "transit"
	}
	return c.Mount
}

func (c Config) authMount() string {
	if c.AuthMount == "" {
		return c.Auth
	}
	return c.AuthMount
}

func (c Config) jwtFile() string {
	if c.JWTFile == "" {
		return jwtDefault
	}
	return c.JWTFile
}

// Check returns everything that is wrong with the configuration.
func (c Config) Check() service.Faults {
	var f service.Faults
	u, err := url.Parse(c.Address)
	f.Add(err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "",
		"address", "must be https://host:port: data keys travel through it")
	f.Add(!keyPattern.MatchString(c.Key), "key", "%.80q, must be the name of a transit key: 1 to 128 letters, digits, '.', '_' or '-'", c.Key)
	for key, v := range map[string]string{"mount": c.mount(), "namespace": strings.Trim(c.Namespace, "/") + "x", "auth_mount": c.authMount()} {
		f.Add(!mountPattern.MatchString(v) && (key != "auth_mount" || c.Auth != ""), key, "must be a path of letters, digits, '.', '_' and '-'")
	}
	f.Add((c.CertFile == "") != (c.CertKey == ""), "cert_key", "cert_file and cert_key go together")
	switch c.Auth {
	case AuthToken:
		f.Add(c.TokenFile == "", "token_file", "is missing: the file that holds the token")
	case AuthAppRole:
		f.Add(c.RoleID == "", "role_id", "is missing: the id of the role")
		f.Add(c.SecretID == "", "secret_id_file", "is missing: the file that holds the secret id")
	case AuthKubernetes:
		f.Add(c.Role == "", "role", "is missing: the role that the pod's service account has")
	case AuthCert:
		f.Add(c.CertFile == "", "cert_file", "is missing: the certificate to log in with")
	default:
		f.Add(true, "auth", "%.40q, must be token, approle, kubernetes or cert", c.Auth)
	}
	c.Attempts.Check(&f)
	return f
}
