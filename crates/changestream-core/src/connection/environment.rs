//! Where a process runs, told by its environment variables.

use std::collections::BTreeMap;

use bson::raw::cstr;
use bson::{RawDocumentBuf, rawdoc};

/// The `client.env` of the Handshake specification: a function-as-a-service provider and a container.
///
/// ```
/// use std::collections::BTreeMap;
/// use changestream_core::connection::Environment;
///
/// let variables = BTreeMap::from([("VERCEL".to_owned(), "1".to_owned())]);
/// let environment = Environment::detect(&variables, false);
/// assert_eq!(environment.name(), Some("vercel"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    function: Option<Function>,
    docker: bool,
    kubernetes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Function {
    provider: Provider,
    timeout_sec: Option<i32>,
    memory_mb: Option<i32>,
    region: Option<String>,
}

impl Environment {
    /// Computes it from the process's environment variables and from whether the file `/.dockerenv` exists.
    pub fn detect(variables: &BTreeMap<String, String>, dockerenv_exists: bool) -> Self {
        let variables = Variables(variables);
        Self {
            function: Provider::detect(&variables).map(|provider| Function::of(provider, &variables)),
            docker: dockerenv_exists,
            kubernetes: variables.populated("KUBERNETES_SERVICE_HOST").is_some(),
        }
    }

    /// The provider's name in the handshake, such as `aws.lambda`.
    pub fn name(&self) -> Option<&'static str> {
        self.function.as_ref().map(|function| function.provider.name())
    }

    /// The document of all fields; none if it would be empty.
    pub(super) fn to_document(&self) -> Option<RawDocumentBuf> {
        let mut document = self.name_only().unwrap_or_default();
        if let Some(function) = &self.function {
            if let Some(seconds) = function.timeout_sec {
                document.append(cstr!("timeout_sec"), seconds);
            }
            if let Some(megabytes) = function.memory_mb {
                document.append(cstr!("memory_mb"), megabytes);
            }
            if let Some(region) = &function.region {
                document.append(cstr!("region"), region.as_str());
            }
        }
        let mut container = RawDocumentBuf::new();
        if self.docker {
            container.append(cstr!("runtime"), "docker");
        }
        if self.kubernetes {
            container.append(cstr!("orchestrator"), "kubernetes");
        }
        if !container.is_empty() {
            document.append(cstr!("container"), container);
        }
        (!document.is_empty()).then_some(document)
    }

    /// The document of the name alone, for where room is short.
    pub(super) fn name_only(&self) -> Option<RawDocumentBuf> {
        self.name().map(|name| rawdoc! { "name": name })
    }
}

impl Function {
    fn of(provider: Provider, variables: &Variables<'_>) -> Self {
        let (timeout, memory, region) = match provider {
            Provider::AwsLambda => (None, Some("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"), Some("AWS_REGION")),
            Provider::AzureFunc => (None, None, None),
            Provider::GcpFunc => (
                Some("FUNCTION_TIMEOUT_SEC"),
                Some("FUNCTION_MEMORY_MB"),
                Some("FUNCTION_REGION"),
            ),
            Provider::Vercel => (None, None, Some("VERCEL_REGION")),
        };
        let number = |name| variables.populated(name)?.parse().ok();
        Self {
            provider,
            timeout_sec: timeout.and_then(number),
            memory_mb: memory.and_then(number),
            region: region
                .and_then(|name| variables.populated(name))
                .map(str::to_owned),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    AwsLambda,
    AzureFunc,
    GcpFunc,
    Vercel,
}

impl Provider {
    /// The one provider whose variables are there. Vercel runs on AWS Lambda and wins over it; any other two
    /// contradict each other.
    fn detect(variables: &Variables<'_>) -> Option<Self> {
        let is_aws = variables.populated("AWS_LAMBDA_RUNTIME_API").is_some()
            || variables
                .populated("AWS_EXECUTION_ENV")
                .is_some_and(|value| value.starts_with("AWS_Lambda_"));
        let is_azure = variables.populated("FUNCTIONS_WORKER_RUNTIME").is_some();
        let is_gcp =
            variables.populated("K_SERVICE").is_some() || variables.populated("FUNCTION_NAME").is_some();
        let is_vercel = variables.populated("VERCEL").is_some();
        match (is_vercel, is_aws, is_azure, is_gcp) {
            (true, _, false, false) => Some(Self::Vercel),
            (false, true, false, false) => Some(Self::AwsLambda),
            (false, false, true, false) => Some(Self::AzureFunc),
            (false, false, false, true) => Some(Self::GcpFunc),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AwsLambda => "aws.lambda",
            Self::AzureFunc => "azure.func",
            Self::GcpFunc => "gcp.func",
            Self::Vercel => "vercel",
        }
    }
}

struct Variables<'a>(&'a BTreeMap<String, String>);

impl<'a> Variables<'a> {
    fn populated(&self, name: &str) -> Option<&'a str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}
