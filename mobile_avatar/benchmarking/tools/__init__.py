"""Command-line tools that run on a phone: what to push, what to type, how to read what they print."""

from mobile_avatar.benchmarking.tools.litert import BENCHMARK_MODEL
from mobile_avatar.benchmarking.tools.qnn import QNN_NET_RUN
from mobile_avatar.benchmarking.tools.qnn_throughput import QNN_THROUGHPUT
from mobile_avatar.benchmarking.tools.snpe import SNPE_NET_RUN
from mobile_avatar.benchmarking.tools.snpe_throughput import SNPE_THROUGHPUT
from mobile_avatar.benchmarking.tools.table import Tool

TOOLS: dict[str, Tool] = {
    tool.name: tool for tool in (BENCHMARK_MODEL, SNPE_NET_RUN, SNPE_THROUGHPUT, QNN_NET_RUN, QNN_THROUGHPUT)
}
"""Name -> tool; those of one runtime stand together, the one that tells most first."""
