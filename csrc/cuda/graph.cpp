#include "cuda/graph.hpp"

#include <cstddef>
#include <vector>

#include "cuda/error.hpp"

#if TRTINFER_CUDA
#include <cuda_runtime_api.h>
#endif

namespace trtinfer::cuda {

#if TRTINFER_CUDA

namespace {

#if CUDART_VERSION >= 13000
constexpr auto get_edges = &cudaGraphGetEdges;
constexpr auto remove_edges = &cudaGraphRemoveDependencies;
constexpr auto add_edges = &cudaGraphAddDependencies;
#else
constexpr auto get_edges = &cudaGraphGetEdges_v2;
constexpr auto remove_edges = &cudaGraphRemoveDependencies_v2;
constexpr auto add_edges = &cudaGraphAddDependencies_v2;
#endif

cudaStream_t native(const Stream& stream) { return static_cast<cudaStream_t>(stream.get()); }

struct DestroyCaptured {
  void operator()(cudaGraph_t graph) const noexcept { cudaGraphDestroy(graph); }
};
using Captured = std::unique_ptr<CUgraph_st, DestroyCaptured>;

// Has every kernel wait for the end of those before it.
void put_in_turn(cudaGraph_t graph) {
  std::size_t count = 0;
  check(get_edges(graph, nullptr, nullptr, nullptr, &count), "cudaGraphGetEdges");
  std::vector<cudaGraphNode_t> from(count), to(count);
  std::vector<cudaGraphEdgeData> edges(count);
  check(get_edges(graph, from.data(), to.data(), edges.data(), &count), "cudaGraphGetEdges");
  std::size_t early = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (edges[i].type != cudaGraphDependencyTypeProgrammatic) continue;
    from[early] = from[i];
    to[early] = to[i];
    edges[early++] = edges[i];
  }
  if (early == 0) return;
  check(remove_edges(graph, from.data(), to.data(), edges.data(), early),
        "cudaGraphRemoveDependencies");
  check(add_edges(graph, from.data(), to.data(), nullptr, early), "cudaGraphAddDependencies");
}

}  // namespace

void DestroyGraph::operator()(void* graph) const noexcept {
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

void Graph::begin(const Stream& stream) {
  check(cudaStreamBeginCapture(native(stream), cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture");
}

void Graph::abandon(const Stream& stream) noexcept {
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(native(stream), &graph) == cudaSuccess) cudaGraphDestroy(graph);
  cudaGetLastError();
}

void Graph::end(const Stream& stream, KernelOrder order) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(native(stream), &graph), "cudaStreamEndCapture");
  const Captured captured(graph);
  if (order == KernelOrder::kInTurn) put_in_turn(graph);
  if (graph_ != nullptr && update(graph)) return;
  cudaGraphExec_t executable = nullptr;
  check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  graph_.reset(executable);
}

bool Graph::update(void* captured) const {
  cudaGraphExecUpdateResultInfo result;
  const cudaError_t code = cudaGraphExecUpdate(static_cast<cudaGraphExec_t>(graph_.get()),
                                               static_cast<cudaGraph_t>(captured), &result);
  if (code != cudaErrorGraphExecUpdateFailure) check(code, "cudaGraphExecUpdate");
  if (code != cudaSuccess) cudaGetLastError();
  return code == cudaSuccess;
}

void Graph::launch(const Stream& stream) const {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph_.get()), native(stream)),
        "cudaGraphLaunch");
}

#else

void DestroyGraph::operator()(void*) const noexcept {}
void Graph::begin(const Stream&) {}
void Graph::abandon(const Stream&) noexcept {}
void Graph::end(const Stream&, KernelOrder) {}
bool Graph::update(void*) const { return false; }
void Graph::launch(const Stream&) const {}

#endif

}  // namespace trtinfer::cuda
