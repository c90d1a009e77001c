//! Who is calling, and what they may call: the one choke point in front of every public service.
//!
//! [`Gate`] is a layer around the whole public server. It finds the caller's [`Actor`] from the
//! token, looks the method up in [`PERMISSIONS`] and puts a [`Caller`] into the request.
//! **Invariant:** default deny: a method that is not in the table is refused, whatever the token.
//! Whether an object is the caller's own is decided again by `State::apply`. Tokens are held as
//! digests, compared in constant time and never logged.

use crate::app::Context;
use crate::config::{Cluster, TokenKind};
use crate::status;
use scheduler_core::command::Actor;
use scheduler_core::id::{Name, SupplierId, TenantId};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use subtle::ConstantTimeEq as _;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tower::{Layer, Service};

/// Longest `authorization` header read: nothing sane is longer.
const AUTHORIZATION_BYTES_MAX: usize = 8 * 1024;
/// Whom an insecure playground's callers stand for unless they say otherwise.
const DEV_NAME: &str = "dev";
/// Metadata by which a caller of an insecure playground chooses a tenant or supplier.
const DEV_TENANT_KEY: &str = "x-muster-tenant";
const DEV_SUPPLIER_KEY: &str = "x-muster-supplier";

/// What a method asks of its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Nothing at all.
    Nothing,
    /// Any valid credential.
    Any,
    Operator,
    /// A tenant, or an operator for one.
    Tenant,
    /// A supplier's agent.
    Supplier,
    /// A supplier for its own nodes, or an operator.
    SupplierOrOperator,
}

/// Every method that the public port serves. Anything else is refused.
pub const PERMISSIONS: &[(&str, Need)] = &[
    ("/muster.v1.JobService/SubmitJob", Need::Tenant),
    ("/muster.v1.JobService/SubmitJobs", Need::Tenant),
    ("/muster.v1.JobService/PlanJob", Need::Tenant),
    ("/muster.v1.JobService/ExplainJob", Need::Tenant),
    ("/muster.v1.JobService/GetJob", Need::Tenant),
    ("/muster.v1.JobService/ListJobs", Need::Tenant),
    ("/muster.v1.JobService/WatchJob", Need::Tenant),
    ("/muster.v1.JobService/ScaleJob", Need::Tenant),
    ("/muster.v1.JobService/CancelJob", Need::Tenant),
    ("/muster.v1.JobService/TranslateManifest", Need::Tenant),
    ("/muster.v1.NodeService/Join", Need::Supplier),
    ("/muster.v1.NodeService/Session", Need::Supplier),
    ("/muster.v1.NodeService/Leave", Need::Supplier),
    ("/muster.v1.NodeAdminService/GetNode", Need::SupplierOrOperator),
    ("/muster.v1.NodeAdminService/ListNodes", Need::SupplierOrOperator),
    ("/muster.v1.NodeAdminService/DrainNode", Need::SupplierOrOperator),
    ("/muster.v1.NodeAdminService/CordonNode", Need::SupplierOrOperator),
    ("/muster.v1.NodeAdminService/UncordonNode", Need::SupplierOrOperator),
    ("/muster.v1.NodeAdminService/RemoveNode", Need::SupplierOrOperator),
    ("/muster.v1.NodeAdminService/GetCapacity", Need::SupplierOrOperator),
    ("/muster.v1.NodeAdminService/SetSiteRtts", Need::Operator),
    ("/muster.v1.NodeAdminService/ListSiteRtts", Need::Operator),
    ("/muster.v1.QuorumService/GetQuorumStatus", Need::Operator),
    ("/muster.v1.QuorumService/AddLearner", Need::Operator),
    ("/muster.v1.QuorumService/PromoteServer", Need::Operator),
    ("/muster.v1.QuorumService/RemoveServer", Need::Operator),
    ("/muster.v1.QuorumService/TransferLeader", Need::Operator),
    ("/muster.v1.QuorumService/TakeSnapshot", Need::Operator),
    ("/muster.v1.TenantService/PutTenant", Need::Operator),
    ("/muster.v1.TenantService/ListTenants", Need::Operator),
    ("/muster.v1.TenantService/RemoveTenant", Need::Operator),
    // Load balancers ask without credentials; the answer is one word.
    ("/grpc.health.v1.Health/Check", Need::Nothing),
    ("/grpc.health.v1.Health/Watch", Need::Nothing),
    ("/grpc.health.v1.Health/List", Need::Any),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Any),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Need::Any),
];

/// Who is calling; in every request that passed the gate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    pub actor: Actor,
    /// Whether this is an insecure playground, where the operator may stand for anybody.
    dev: bool,
}

impl Caller {
    /// A caller, for tests and for the gate.
    pub fn new(actor: Actor, dev: bool) -> Self {
        Self { actor, dev }
    }

    /// The caller of a request that passed the gate.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| status::unauthenticated("the call carries no credentials"))
    }

    /// The tenant to act for: the caller's own, or, for operators, the one they name.
    /// `field` is the path of `named` in the request.
    pub fn tenant(&self, named: &str, field: impl Display) -> Result<TenantId, Status> {
        let bad = |problem: String| status::bad_field(&field.to_string(), &problem);
        match &self.actor {
            Actor::Tenant(own) if named.is_empty() || named == own.0.as_str() => Ok(own.clone()),
            Actor::Tenant(_) => Err(bad("may only be named by operators".to_owned())),
            Actor::Operator if named.is_empty() && self.dev => dev_name().map(TenantId),
            Actor::Operator if named.is_empty() => {
                Err(bad("is empty; operators must name the tenant".to_owned()))
            }
            Actor::Operator => Name::parse(named).map(TenantId).map_err(|e| bad(e.to_string())),
            Actor::Supplier(_) | Actor::System => Err(status::forbidden("suppliers have no jobs")),
        }
    }

    /// The supplier that the caller's nodes belong to.
    pub fn supplier(&self) -> Result<SupplierId, Status> {
        match &self.actor {
            Actor::Supplier(own) => Ok(own.clone()),
            Actor::Operator if self.dev => dev_name().map(SupplierId),
            _ => Err(status::forbidden("only a supplier's agents may call this")),
        }
    }

    /// Whether the caller may see everything.
    pub fn is_operator(&self) -> bool {
        self.actor == Actor::Operator
    }

    /// Whether the caller may see a job of this tenant.
    pub fn sees_tenant(&self, tenant: &TenantId) -> bool {
        match &self.actor {
            Actor::Operator => true,
            Actor::Tenant(own) => own == tenant,
            Actor::Supplier(_) | Actor::System => false,
        }
    }

    /// Whether the caller may see and change a node of this supplier.
    pub fn sees_supplier(&self, supplier: &SupplierId) -> bool {
        match &self.actor {
            Actor::Operator => true,
            Actor::Supplier(own) => own == supplier,
            Actor::Tenant(_) | Actor::System => false,
        }
    }

    fn may(&self, need: Need) -> bool {
        match need {
            Need::Nothing | Need::Any => true,
            Need::Operator => self.actor == Actor::Operator,
            Need::Tenant => matches!(self.actor, Actor::Operator | Actor::Tenant(_)),
            Need::Supplier => {
                matches!(self.actor, Actor::Supplier(_))
                    || (self.dev && self.actor == Actor::Operator)
            }
            Need::SupplierOrOperator => {
                matches!(self.actor, Actor::Operator | Actor::Supplier(_))
            }
        }
    }
}

/// The tenant and supplier of an insecure playground.
pub(crate) fn dev_name() -> Result<Name, Status> {
    Name::parse(DEV_NAME).map_err(|error| status::internal(&error.to_string()))
}

/// The credentials that a cluster knows.
pub struct Tokens {
    known: Vec<([u8; 32], Actor)>,
    dev: bool,
}

impl Tokens {
    /// Takes over the digests of the configured tokens.
    pub fn new(cluster: &Cluster) -> Self {
        let actor = |kind: &TokenKind| match kind {
            TokenKind::Operator => Actor::Operator,
            TokenKind::Tenant(tenant) => Actor::Tenant(tenant.clone()),
            TokenKind::Supplier(supplier) => Actor::Supplier(supplier.clone()),
        };
        let known = cluster.tokens.iter();
        let known = known.map(|t| (digest(t.secret.reveal()), actor(&t.kind))).collect();
        Self { known, dev: cluster.insecure_dev }
    }

    /// Who shows these headers. All tokens are looked at, so that time tells nothing.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Status> {
        let mut shown = headers.get_all("authorization").iter();
        let (first, second) = (shown.next(), shown.next());
        let Some(first) = first else {
            if self.dev {
                return dev_caller(headers);
            }
            return Err(status::unauthenticated("the call carries no bearer token"));
        };
        if second.is_some() {
            return Err(status::unauthenticated("the call carries two authorization headers"));
        }
        let token = bearer(first)
            .ok_or_else(|| status::unauthenticated("the authorization is not a bearer token"))?;
        let shown = digest(token);
        let mut found = None;
        for (known, actor) in &self.known {
            if bool::from(known.ct_eq(&shown)) {
                found = Some(actor);
            }
        }
        match found {
            Some(actor) => Ok(Caller::new(actor.clone(), self.dev)),
            None => Err(status::unauthenticated("the token is not known")),
        }
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok().filter(|text| text.len() <= AUTHORIZATION_BYTES_MAX)?;
    let (scheme, token) = text.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn dev_caller(headers: &HeaderMap) -> Result<Caller, Status> {
    let named = |key: &str| -> Result<Option<Name>, Status> {
        let Some(value) = headers.get(key) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        Name::parse(text).map(Some).map_err(|error| status::bad_field(key, &error.to_string()))
    };
    let actor = match (named(DEV_TENANT_KEY)?, named(DEV_SUPPLIER_KEY)?) {
        (None, None) => Actor::Operator,
        (Some(tenant), None) => Actor::Tenant(TenantId(tenant)),
        (None, Some(supplier)) => Actor::Supplier(SupplierId(supplier)),
        (Some(_), Some(_)) => {
            return Err(status::bad_field(DEV_SUPPLIER_KEY, "must not come with x-muster-tenant"));
        }
    };
    Ok(Caller::new(actor, true))
}

/// Finds the caller and decides; the whole of authentication and authorization.
fn admit(tokens: &Tokens, method: &str, headers: &HeaderMap) -> Result<Option<Caller>, Status> {
    let need = PERMISSIONS.iter().find(|(known, _)| *known == method).map(|(_, need)| *need);
    match need {
        Some(Need::Nothing) => Ok(None),
        Some(need) => {
            let caller = tokens.authenticate(headers)?;
            if caller.may(need) {
                Ok(Some(caller))
            } else {
                Err(status::forbidden("these credentials do not allow this call"))
            }
        }
        None => {
            // A caller with credentials learns that the method does not exist; others do not.
            tokens.authenticate(headers)?;
            Err(Status::unimplemented("no such method"))
        }
    }
}

/// The layer around all public services.
#[derive(Clone)]
pub struct Gate {
    tokens: Arc<Tokens>,
    context: Context,
}

impl Gate {
    /// A gate for the cluster's tokens.
    pub fn new(tokens: Tokens, context: Context) -> Self {
        Self { tokens: Arc::new(tokens), context }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated { inner, gate: self.clone() }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Gate,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let admitted = admit(&self.gate.tokens, request.uri().path(), request.headers());
        let context = self.gate.context.clone();
        let answer = match admitted {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                // The instance that was polled ready is the one to be called.
                let spare = self.inner.clone();
                Ok(std::mem::replace(&mut self.inner, spare).call(request))
            }
            Err(refusal) => {
                tracing::debug!(method = request.uri().path(), %refusal, "refused");
                Err(refusal)
            }
        };
        Box::pin(async move {
            let mut response = match answer {
                Ok(answer) => answer.await?,
                Err(refusal) => refusal.into_http(),
            };
            status::add_leader(response.headers_mut(), &context);
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret, Token};

    fn tokens(dev: bool) -> Tokens {
        let mut cluster = Config::dev(1, "/tmp/x").cluster;
        cluster.insecure_dev = dev;
        let name = |text: &str| Name::parse(text).expect("a name");
        cluster.tokens = [
            (TokenKind::Operator, "operator-token"),
            (TokenKind::Tenant(TenantId(name("acme"))), "acme-token"),
            (TokenKind::Supplier(SupplierId(name("dc1"))), "dc1-token"),
        ]
        .map(|(kind, secret)| Token { kind, secret: Secret::new(secret) })
        .to_vec();
        Tokens::new(&cluster)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (key, value) in pairs {
            map.append(*key, value.parse().expect("a header"));
        }
        map
    }

    /// Code with which a call is refused; `Ok` when it is let through.
    fn code(dev: bool, method: &str, pairs: &[(&'static str, &str)]) -> tonic::Code {
        match admit(&tokens(dev), method, &headers(pairs)) {
            Ok(_) => tonic::Code::Ok,
            Err(refusal) => refusal.code(),
        }
    }

    const SUBMIT: &str = "/muster.v1.JobService/SubmitJob";
    const JOIN: &str = "/muster.v1.NodeService/Join";
    const PROMOTE: &str = "/muster.v1.QuorumService/PromoteServer";

    #[test]
    fn each_kind_of_token_opens_its_own_methods_only() {
        use tonic::Code::{Ok, PermissionDenied as No};
        for (token, expected) in [
            ("operator-token", [Ok, No, Ok]),
            ("acme-token", [Ok, No, No]),
            ("dc1-token", [No, Ok, No]),
        ] {
            let bearer = format!("Bearer {token}");
            let got = [SUBMIT, JOIN, PROMOTE]
                .map(|method| code(false, method, &[("authorization", &bearer)]));
            assert_eq!(got, expected, "{token}");
        }
    }

    #[test]
    fn anything_odd_is_refused() {
        use tonic::Code::{Unauthenticated, Unimplemented};
        let operator = ("authorization", "Bearer operator-token");
        assert_eq!(code(false, SUBMIT, &[]), Unauthenticated);
        assert_eq!(code(false, SUBMIT, &[operator, operator]), Unauthenticated);
        for value in ["operator-token", "Basic operator-token", "Bearer ", "Bearer operator-toke"] {
            assert_eq!(code(false, SUBMIT, &[("authorization", value)]), Unauthenticated);
        }
        let long = format!("Bearer {}", "x".repeat(AUTHORIZATION_BYTES_MAX));
        assert_eq!(code(false, SUBMIT, &[("authorization", &long)]), Unauthenticated);
        for method in ["/muster.v1.JobService/submitjob", "/muster.v1.JobService/SubmitJob/", "/"] {
            assert_eq!(code(false, method, &[operator]), Unimplemented);
            assert_eq!(code(false, method, &[]), Unauthenticated);
        }
        // Naming oneself counts for nothing outside a playground.
        assert_eq!(code(false, SUBMIT, &[("x-muster-tenant", "acme")]), Unauthenticated);
    }

    #[test]
    fn in_a_playground_callers_are_who_they_say() {
        use tonic::Code::{InvalidArgument, Ok, PermissionDenied};
        assert_eq!(code(true, PROMOTE, &[]), Ok);
        assert_eq!(code(true, PROMOTE, &[("x-muster-tenant", "acme")]), PermissionDenied);
        assert_eq!(code(true, SUBMIT, &[("x-muster-tenant", "acme")]), Ok);
        assert_eq!(code(true, JOIN, &[("x-muster-supplier", "dc1")]), Ok);
        assert_eq!(code(true, SUBMIT, &[("x-muster-tenant", "a/b")]), InvalidArgument);
    }

    #[test]
    fn only_operators_name_a_tenant() {
        let name = |text: &str| Name::parse(text).expect("a name");
        let acme = TenantId(name("acme"));
        let tenant = Caller::new(Actor::Tenant(acme.clone()), false);
        assert_eq!(tenant.tenant("", "tenant").expect("own"), acme);
        assert!(tenant.tenant("other", "tenant").is_err());
        let operator = Caller::new(Actor::Operator, false);
        assert!(operator.tenant("", "tenant").is_err());
        assert_eq!(operator.tenant("acme", "tenant").expect("named"), acme);
        assert!(operator.supplier().is_err());
        assert!(Caller::new(Actor::Operator, true).supplier().is_ok());
    }

    #[test]
    fn the_table_names_every_public_method_once() {
        use prost::Message as _;
        let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).expect("decodes");
        let mut served = std::collections::BTreeSet::new();
        for file in set.file.iter().filter(|file| file.package() == "muster.v1") {
            for service in file.service.iter().filter(|one| one.name() != "PeerService") {
                for method in &service.method {
                    served.insert(format!("/muster.v1.{}/{}", service.name(), method.name()));
                }
            }
        }
        let listed: Vec<String> = PERMISSIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let unique: std::collections::BTreeSet<String> = listed.iter().cloned().collect();
        assert_eq!(unique.len(), listed.len());
        let ours = unique.into_iter().filter(|name| name.starts_with("/muster."));
        assert_eq!(ours.collect::<std::collections::BTreeSet<_>>(), served);
    }
}
