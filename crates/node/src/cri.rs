//! The CRI v1 client: one shared HTTP/2 connection over the runtime's socket, with a deadline per call.
//!
//! Input: requests as the interface's messages. Output: replies, or the runtime's gRPC status as it is.
//! Invariant: every call has a deadline; a lost connection is re-made by the next call. Does not retry and does not
//! interpret (see `observe` and `worker`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

/// The interface's own messages and clients, generated.
#[allow(unreachable_pub, clippy::all, missing_docs)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// Health checking, for grpc probes.
#[allow(unreachable_pub, clippy::all, missing_docs)]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// containerd's events.
#[allow(unreachable_pub, clippy::all, missing_docs)]
pub mod containerd {
    tonic::include_proto!("containerd.services.events.v1");
}

use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

/// Most calls answer from the runtime's memory.
const QUICK: Duration = Duration::from_secs(30);
/// Calls that start processes or set up networks; upstream's default `runtime-request-timeout` is 2 min, sandboxes 4 min.
const SLOW: Duration = Duration::from_secs(240);
/// A pull has no upstream bound besides progress; this one keeps a dead registry from holding a slot for ever.
const PULL: Duration = Duration::from_secs(30 * 60);
/// Replies: lists of thousands of containers, 16 MiB of exec output.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// A cheap handle; clones share the connection.
#[derive(Clone)]
pub struct Cri {
    channel: Channel,
    socket: PathBuf,
}

/// Generates one method a CRI call: name, deadline, request and what to take out of the reply.
macro_rules! calls {
    ($client:ident: $($name:ident($request:ident) -> $reply:ident within $deadline:expr;)*) => {
        $(pub async fn $name(&self, request: v1::$request) -> Result<v1::$reply, Status> {
            let mut request = Request::new(request);
            request.set_timeout($deadline);
            let began = tokio::time::Instant::now();
            let reply = self.$client().$name(request).await.map(tonic::Response::into_inner);
            tracing::trace!(took = ?began.elapsed(), concat!("runtime call ", stringify!($name)));
            reply
        })*
    };
}

impl Cri {
    /// Connects lazily: the socket may appear later.
    pub fn new(socket: &Path) -> Self {
        let path = socket.to_path_buf();
        let channel = Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(tower::service_fn(
            move |_: Uri| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            },
        ));
        Self { channel, socket: socket.to_path_buf() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The connection, for other services on the same socket.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    calls! { runtime:
        version(VersionRequest) -> VersionResponse within QUICK;
        status(StatusRequest) -> StatusResponse within QUICK;
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse within SLOW;
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse within SLOW;
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse within SLOW;
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse within QUICK;
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse within QUICK;
        create_container(CreateContainerRequest) -> CreateContainerResponse within SLOW;
        start_container(StartContainerRequest) -> StartContainerResponse within SLOW;
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse within SLOW;
        list_containers(ListContainersRequest) -> ListContainersResponse within QUICK;
        container_status(ContainerStatusRequest) -> ContainerStatusResponse within QUICK;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse within QUICK;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse within QUICK;
        exec(ExecRequest) -> ExecResponse within QUICK;
        attach(AttachRequest) -> AttachResponse within QUICK;
        port_forward(PortForwardRequest) -> PortForwardResponse within QUICK;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse within QUICK;
    }

    calls! { images:
        list_images(ListImagesRequest) -> ListImagesResponse within QUICK;
        image_status(ImageStatusRequest) -> ImageStatusResponse within QUICK;
        pull_image(PullImageRequest) -> PullImageResponse within PULL;
        remove_image(RemoveImageRequest) -> RemoveImageResponse within SLOW;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse within QUICK;
    }

    /// SIGTERM (or the container's stop signal), then SIGKILL after `grace_seconds`. Returns once it is dead.
    pub async fn stop_container(&self, container_id: &str, grace_seconds: i64) -> Result<(), Status> {
        let grace_seconds = grace_seconds.max(0);
        let mut request =
            Request::new(v1::StopContainerRequest { container_id: container_id.to_owned(), timeout: grace_seconds });
        request.set_timeout(SLOW + Duration::from_secs(grace_seconds.unsigned_abs()));
        self.runtime().stop_container(request).await.map(drop)
    }

    /// Runs `command` to its end; the runtime kills it after `timeout`. DeadlineExceeded means it was killed.
    pub async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse, Status> {
        let mut request = Request::new(v1::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        });
        request.set_timeout(timeout.saturating_add(Duration::from_secs(10)));
        self.runtime().exec_sync(request).await.map(tonic::Response::into_inner)
    }
}
