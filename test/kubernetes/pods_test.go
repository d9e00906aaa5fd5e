// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// TestPods runs the examples as pods, beside one another.
func TestPods(t *testing.T) {
	r := newRig(t)
	t.Run("scenario", func(t *testing.T) {
		for _, s := range []struct {
			name string
			run  func(*testing.T, *rig)
		}{
			{"signed", testSigned},
			{"OpenBao", testOpenBao},
			{"policy of Transit and public key", testPolicy},
			{"confined", testConfined},
			{"refused", testRefused},
			{"not asked for is not lent", testOtherAccount},
			{"a token does not review itself", testOwnReview},
			{"vault sealed", testSealed},
			{"registry gone", testRegistryGone},
			{"vault away for 30 s", testVaultAway},
			{"killed and resumed", testResume},
			{"agent", testAgent},
			{"pull secret", testPullSecret},
			{"corporate", testCorporate},
			{"kserve", testKServe},
		} {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				s.run(t, r)
				t.Logf("%.1f s", time.Since(start).Seconds())
			})
		}
	})
	r.keepsNothingLongLived(t)
}

// seen is what the workload reports.
type seen struct {
	UID, GID    int
	Files       map[string]string
	Writable    []string
	Environment []string
	Status      map[string]string
}

// app reads what the running application found.
func (r *rig) app(t *testing.T, p pod) seen {
	t.Helper()
	return report(t, r.logs(t, p, "app"))
}

func report(t *testing.T, log string) seen {
	t.Helper()
	var s seen
	if err := json.Unmarshal([]byte(log), &s); err != nil {
		t.Fatalf("the workload says %q: %v", log, err)
	}
	delete(s.Files, ".aegis/receipt.json")
	return s
}

// holdsModel fails the test unless the application sees the model and nothing else.
func (r *rig) holdsModel(t *testing.T, s seen) {
	t.Helper()
	files := make(map[string]string)
	for name, sum := range s.Files {
		if !strings.HasPrefix(name, ".aegis/") {
			files[name] = sum
		}
	}
	if !maps.Equal(files, r.files) {
		t.Errorf("the application sees %v, want %v", files, r.files)
	}
}

// testSigned also shows the order: Vault said yes before the first byte was asked
// for. It has a Vault of its own, so that the audit log holds this pod and no other.
func testSigned(t *testing.T, r *rig) { r.inOrder(t, "signed", servertest.Vault(t)) }

func testOpenBao(t *testing.T, r *rig) { r.inOrder(t, "openbao", servertest.Stack(t, "-no-registry")) }

func (r *rig) inOrder(t *testing.T, name string, vault *servertest.Server) {
	t.Helper()
	r.trustCluster(t, vault)
	toVault := servertest.FaultProxy(t, vault.VaultAddr)
	proxy := servertest.FaultProxy(t, r.registry.Registry)
	repo := proxy.Addr + "/models/" + name
	pushed := r.push(t, vault, repo+":v1", keyName)
	proxy.Reset()
	blobs := &modelBlobs{digests: slices.Collect(maps.Values(r.files))}
	proxy.Intercept(blobs.note)

	d := deploymentOf(t, name, mainExample, exampleRef, repo+":v1", exampleVault, toVault.URL)
	applied := time.Now()
	r.run(t, d)
	p := r.awaitRunning(t, d, time.Minute)
	t.Logf("applied to running in %.1f s", time.Since(applied).Seconds())
	r.holdsModel(t, r.app(t, p))

	var result struct {
		Reference string
		Verified  bool
		Durations map[string]float64
	}
	if err := json.Unmarshal([]byte(r.logs(t, p, "fetch-model", "--limit-bytes=100000")), &result); err != nil {
		t.Fatal(err)
	}
	if !result.Verified || result.Reference != pushed {
		t.Errorf("pull says %+v, pushed was %s", result, pushed)
	}
	login, verified, revoked := answers(t, vault, "auth/kubernetes/login"), answers(t, vault, "transit/verify/"+keyName), answers(t, vault, "auth/token/revoke-self")
	if len(login) != 1 || len(revoked) != 1 || len(verified) == 0 {
		t.Fatalf("the audit log has %d logins, %d verifications, %d revocations", len(login), len(verified), len(revoked))
	}
	// The first may be the pushing job's check of its own signature.
	last := verified[len(verified)-1]
	ttl := podTTL(t, last)
	podTTL(t, login[0])
	if first := blobs.asked(); first.IsZero() || !login[0].at.Before(last.at) || !last.at.Before(first) || !last.ok {
		t.Errorf("login %s, verify %s, first blob %s", login[0].at, last.at, first)
	}
	prove(t, podsVerify, name+": kubernetes auth, TokenReview by the API server: login %s, transit/verify %s (audit log), first model blob GET %s (registry)", login[0].at.Format(stamp), last.at.Format(stamp), blobs.asked().Format(stamp))
	prove(t, auditShows, name+": login and verify by service account default/aegis-app, role %s, token TTL %s, revoked after use", roleName, ttl)
	prove(t, podsVerify, name+": requests: %s; to the registry before the first model blob: %d; seconds: %v",
		strings.Join(paths(toVault.Requests()), ", "), blobs.before(proxy.Requests()), result.Durations)
}

const stamp = "15:04:05.000"

func paths(requests []servertest.Request) []string {
	var all []string
	for _, q := range requests {
		all = append(all, q.Method+" "+q.Path)
	}
	return all
}

func testPolicy(t *testing.T, r *rig) {
	repo := r.registry.Registry + "/models/policy"
	r.push(t, r.vault, repo+":v1", keyName)
	d := deploymentOf(t, "policy", policyExample, exampleRef, repo+":v1", exampleVault, r.vault.VaultAddr,
		"registry.example.com/models/**", r.registry.Registry+"/models/**")
	key := string(r.vault.PublicKeyPEM(t, keyName, 0))
	in[object](t, d.others[0], "data")["release.pub"] = key
	r.run(t, d)
	r.holdsModel(t, r.app(t, r.awaitRunning(t, d, time.Minute)))
}

// testConfined runs the workload in the init container's place, as it stands.
func testConfined(t *testing.T, r *rig) {
	d := deploymentOf(t, "confined", mainExample)
	c := d.init(t)
	c["image"], c["args"] = workloadName, []any{"probe", "/models"}
	r.run(t, d)
	p := r.await(t, d, "probed", time.Minute, func(p pod) bool {
		return len(p.Status.InitContainerStatuses) == 1 && p.Status.InitContainerStatuses[0].State.Terminated != nil
	})
	s := report(t, r.logs(t, p, "fetch-model"))
	if s.UID != 65532 || s.GID != 65532 {
		t.Errorf("uid %d, gid %d", s.UID, s.GID)
	}
	if !slices.Equal(s.Writable, []string{"/models"}) {
		t.Errorf("it can write to %v", s.Writable)
	}
	if s.Status["CapEff"] != "0000000000000000" || s.Status["NoNewPrivs"] != "1" || s.Status["Seccomp"] != "2" {
		t.Errorf("the kernel says %v", s.Status)
	}
	for _, name := range s.Environment {
		if strings.Contains(name, "TOKEN") || strings.Contains(name, "SECRET") {
			t.Errorf("its environment has %s", name)
		}
	}
	prove(t, confined, "uid %d, gid %d, writable outside of /dev: %v, kernel: %v", s.UID, s.GID, s.Writable, s.Status)
}

func testRefused(t *testing.T, r *rig) {
	for _, c := range []struct{ name, key, code string }{
		{"unsigned", "", "unsigned"},
		{"wrong-key", "other", "rejected"},
	} {
		repo := r.registry.Registry + "/models/" + c.name
		r.push(t, r.vault, repo+":v1", c.key)
		d := deploymentOf(t, c.name, mainExample, exampleRef, repo+":v1", exampleVault, r.vault.VaultAddr)
		r.run(t, d)
		p, end := r.awaitRefused(t, d, time.Minute)
		r.isReason(t, p, end, 3, c.code)
	}
}

// isReason fails the test unless the pod's status shows exit code and one line that
// begins with code.
func (r *rig) isReason(t *testing.T, p pod, end terminated, exit int, code string) {
	t.Helper()
	message := strings.TrimSuffix(end.Message, "\n")
	if end.ExitCode != exit || !strings.HasPrefix(message, code+": ") || strings.Contains(message, "\n") {
		t.Errorf("exit code %d, message %q; want %d and one line of %s", end.ExitCode, end.Message, exit, code)
	}
	if shown := r.kubectl(t, nil, "describe", "pod", p.Metadata.Name); !strings.Contains(shown, message) {
		t.Errorf("kubectl describe does not show %q:\n%s", message, shown)
	}
	prove(t, refused, "exit %d, kubectl describe shows: %.160s", end.ExitCode, message)
}

// testOtherAccount has a service account log in that the role does not name.
func testOtherAccount(t *testing.T, r *rig) {
	repo := r.registry.Registry + "/models/other-account"
	r.push(t, r.vault, repo+":v1", keyName)
	r.kubectl(t, nil, "create", "serviceaccount", "somebody")
	d := deploymentOf(t, "other-account", mainExample, exampleRef, repo+":v1", exampleVault, r.vault.VaultAddr)
	d.pod(t)["serviceAccountName"] = "somebody"
	r.run(t, d)
	p, end := r.awaitRefused(t, d, time.Minute)
	r.isReason(t, p, end, 4, "vault_login_refused")
}

// testOwnReview has no token_reviewer_jwt in Vault: the pod's token would have to
// review itself, and its audience is not the API server's.
func testOwnReview(t *testing.T, r *rig) {
	ca, err := os.ReadFile(r.caFile)
	if err != nil {
		t.Fatal(err)
	}
	r.kubectl(t, nil, "create", "clusterrolebinding", "own-review", "--clusterrole=system:auth-delegator", "--serviceaccount=default:aegis-app")
	const mount = "own-review"
	r.vault.Write(t, "sys/auth/"+mount, map[string]any{"type": "kubernetes"})
	r.vault.Write(t, "auth/"+mount+"/config", map[string]any{"kubernetes_host": r.server, "kubernetes_ca_cert": string(ca), "disable_local_ca_jwt": true})
	for audience, exit := range map[string]int{"vault": 4, "https://kubernetes.default.svc": 0} {
		name := fmt.Sprintf("own-review-%d", exit)
		role := map[string]any{
			"audience": audience, "bound_service_account_names": "aegis-app", "bound_service_account_namespaces": "default",
			"token_policies": "aegis-transit-verify-policy", "token_no_default_policy": true, "token_ttl": "10m",
		}
		r.vault.Write(t, "auth/"+mount+"/role/"+name, role)
		repo := r.registry.Registry + "/models/" + name
		r.push(t, r.vault, repo+":v1", keyName)
		d := deploymentOf(t, name, mainExample, exampleRef, repo+":v1", exampleVault, r.vault.VaultAddr, "audience: vault", "audience: "+audience)
		d.setenv(t, "AEGIS_VAULT_AUTH_MOUNT", mount)
		d.setenv(t, "AEGIS_VAULT_K8S_TOKEN_PATH", "/var/run/secrets/vault/token") // named, or a token for the API server is not sent
		d.replaceArg(t, "--vault-role=aegis-k8s-role", "--vault-role="+name)
		r.run(t, d)
		if exit == 0 {
			r.awaitRunning(t, d, time.Minute)
			continue
		}
		p, end := r.awaitRefused(t, d, time.Minute)
		r.isReason(t, p, end, exit, "vault_login_refused")
	}
}

func testSealed(t *testing.T, r *rig) {
	sealed := servertest.Vault(t)
	r.trustCluster(t, sealed)
	repo := r.registry.Registry + "/models/sealed"
	r.push(t, sealed, repo+":v1", keyName)
	sealed.Seal(t)
	d := deploymentOf(t, "sealed", mainExample, exampleRef, repo+":v1", exampleVault, sealed.VaultAddr)
	d.replaceArg(t, "--retry-timeout=10m", "--retry-timeout=2s")
	r.run(t, d)
	p, end := r.awaitRefused(t, d, time.Minute)
	r.isReason(t, p, end, 4, "vault_sealed")
}

func testRegistryGone(t *testing.T, r *rig) {
	gone := servertest.FaultProxy(t, r.registry.Registry)
	gone.Down()
	d := deploymentOf(t, "gone", mainExample, exampleRef, gone.Addr+"/models/gone:v1", exampleVault, r.vault.VaultAddr)
	d.replaceArg(t, "--retry-timeout=10m", "--retry-timeout=2s")
	r.run(t, d)
	p, end := r.awaitRefused(t, d, time.Minute)
	r.isReason(t, p, end, 4, "registry_unreachable")
}

// testVaultAway takes Vault away before the pod starts, for 30 s: the manifest's own
// --retry-timeout carries it over, without a restart.
func testVaultAway(t *testing.T, r *rig) {
	vault := servertest.FaultProxy(t, r.vault.VaultAddr)
	repo := r.registry.Registry + "/models/away"
	r.push(t, r.vault, repo+":v1", keyName)
	d := deploymentOf(t, "away", mainExample, exampleRef, repo+":v1", exampleVault, vault.URL)
	vault.Down()
	r.run(t, d)
	started := r.await(t, d, "waiting for Vault", time.Minute, func(p pod) bool {
		return len(p.Status.InitContainerStatuses) == 1 && p.Status.InitContainerStatuses[0].State.Running != nil
	})
	time.Sleep(30 * time.Second)
	var still pod
	r.get(t, "/api/v1/namespaces/default/pods/"+started.Metadata.Name, &still)
	if c := still.Status.InitContainerStatuses[0]; c.State.Running == nil || c.RestartCount != 0 {
		t.Errorf("after 30 s without Vault: %+v", c)
	}
	vault.Up(t)
	back := time.Now()
	p := r.awaitRunning(t, d, time.Minute)
	if n := p.Status.InitContainerStatuses[0].RestartCount; n != 0 {
		t.Errorf("%d restarts", n)
	}
	r.holdsModel(t, r.app(t, p))
	prove(t, carriesOn, "Vault away for 30 s: running %.1f s after it was back, no restart", time.Since(back).Seconds())
}

// testResume kills the init container, as the kernel would, in the middle of a slow
// transfer. The kubelet starts it again, and it goes on with what the volume holds.
func testResume(t *testing.T, r *rig) {
	proxy := servertest.FaultProxy(t, r.registry.Registry)
	repo := proxy.Addr + "/models/resume"
	r.push(t, r.vault, repo+":v1", keyName)
	slow := &slowBlobs{backend: r.registry.RegistryURL(), after: 8 << 20, reached: make(chan struct{})}
	proxy.Intercept(slow.serve)
	d := deploymentOf(t, "resume", mainExample, exampleRef, repo+":v1", exampleVault, r.vault.VaultAddr)
	r.run(t, d)
	select {
	case <-slow.reached:
	case <-time.After(time.Minute):
		t.Fatal("no transfer was begun")
	}
	p := r.await(t, d, "fetching", time.Minute, func(p pod) bool {
		return len(p.Status.InitContainerStatuses) == 1 && p.Status.InitContainerStatuses[0].State.Running != nil
	})
	if files := r.volume(t, p); len(files) != 0 {
		t.Errorf("in the middle of the transfer these have their final names: %v", files)
	}
	id := strings.TrimPrefix(p.Status.InitContainerStatuses[0].ContainerID, "containerd://")
	r.ctr(t, "tasks", "kill", "--signal", "SIGKILL", id)
	proxy.Intercept(nil)
	p = r.awaitRunning(t, d, time.Minute)
	c := p.Status.InitContainerStatuses[0]
	if c.RestartCount != 1 {
		t.Errorf("%d restarts, want 1", c.RestartCount)
	}
	var result struct{ BytesReused, BytesFetched int64 }
	if err := json.Unmarshal([]byte(r.logs(t, p, "fetch-model")), &result); err != nil {
		t.Fatal(err)
	}
	if result.BytesReused < 1<<20 || result.BytesFetched >= 16<<20 {
		t.Errorf("%+v: nothing was resumed", result)
	}
	r.holdsModel(t, r.app(t, p))
	prove(t, carriesOn, "killed after 8 MiB: the restart reused %d bytes and fetched %d", result.BytesReused, result.BytesFetched)
}

// slowBlobs passes the registry's answers on, and of a large blob only the
// beginning: then it holds the connection open.
type slowBlobs struct {
	backend string
	after   int
	reached chan struct{}
	once    sync.Once
}

func (s *slowBlobs) serve(w http.ResponseWriter, q *http.Request) bool {
	if q.Method != http.MethodGet || !strings.Contains(q.URL.Path, "/blobs/") {
		return false
	}
	out, err := http.NewRequestWithContext(q.Context(), http.MethodGet, s.backend+q.URL.Path, nil)
	if err != nil {
		return false
	}
	out.Header = q.Header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil || resp.ContentLength < int64(s.after) {
		return false
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	part := make([]byte, s.after)
	if n, err := io.ReadFull(resp.Body, part); err == nil {
		_, _ = w.Write(part[:n])
		_ = http.NewResponseController(w).Flush()
	}
	// What was sent must also have been written.
	s.once.Do(func() { time.AfterFunc(time.Second, func() { close(s.reached) }) })
	<-q.Context().Done()
	return true
}
