//! The three calls of the contract, with buffers of their own size: tonic's default of 8 KiB each
//! way per stream is most of what an idle agent of a large fleet would cost.
//!
//! **Invariant:** paths and messages are those of `muster.v1.NodeService`.

use prost::Message;
use proto::v1;
use std::marker::PhantomData;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// Room for a hello, a heartbeat or a few reports; grows when more is said.
const BUFFER_BYTES: usize = 256;
/// Messages are handed on in pieces of about this size, as tonic does by itself.
const YIELD_BYTES: usize = 32 * 1024;
/// Largest desired state taken: 4,096 replicas with programs of 8 KiB each, and room to spare.
const DESIRED_BYTES_MAX: usize = 64 * 1024 * 1024;

struct Small<T, U>(PhantomData<(T, U)>);

impl<T, U> Codec for Small<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(DESIRED_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(format!("cannot connect: {error}")))?;
    Ok(grpc)
}

async fn unary<T, U>(channel: Channel, request: Request<T>, path: &'static str) -> Result<U, Status>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    let path = PathAndQuery::from_static(path);
    let answer = ready(channel).await?.unary(request, path, Small(PhantomData)).await?;
    Ok(answer.into_inner())
}

pub(super) async fn join(
    channel: Channel,
    request: Request<v1::JoinRequest>,
) -> Result<v1::JoinResponse, Status> {
    unary(channel, request, "/muster.v1.NodeService/Join").await
}

pub(super) async fn leave(
    channel: Channel,
    request: Request<v1::LeaveRequest>,
) -> Result<(), Status> {
    let path = "/muster.v1.NodeService/Leave";
    unary::<_, v1::LeaveResponse>(channel, request, path).await.map(|_| ())
}

pub(super) async fn session<S>(
    channel: Channel,
    request: Request<S>,
) -> Result<Streaming<v1::SessionResponse>, Status>
where
    S: futures::Stream<Item = v1::SessionRequest> + Send + 'static,
{
    let path = PathAndQuery::from_static("/muster.v1.NodeService/Session");
    let codec = Small::<v1::SessionRequest, v1::SessionResponse>(PhantomData);
    Ok(ready(channel).await?.streaming(request, path, codec).await?.into_inner())
}
