"""The table of `test_private_interfaces.py`: which names that are not public are in use, where and why."""

import importlib
import types
from collections.abc import Callable
from typing import NamedTuple

import keras

# Private names of our own classes that another of our files reads: the parts of one backbone.
OWN = {"._frequencies", "._is_new", "._product"}


class Private(NamedTuple):
    """What stands behind one or more names.

    names: as `private_uses` shows them.
    files: where they are used.
    why: what the public interface lacks.
    expected: finds a thing -> names of its parameters, or its type where it is no function.
    """

    distribution: str
    names: set[str]
    files: set[str]
    why: str
    expected: dict[Callable, str | type]


def found(dotted):
    """Finds what a dotted name means; the module is imported only then."""

    def find():
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            try:
                thing = importlib.import_module(".".join(parts[:length]))
            except ModuleNotFoundError:
                continue
            for name in parts[length:]:
                thing = getattr(thing, name)
            return thing
        raise ModuleNotFoundError(dotted)

    return find


def tracker_of_dense(name):
    """Finds a method of the tracker that every layer has."""
    return lambda: getattr(keras.layers.Dense(1)._tracker, name)


def kaggle_session():
    """The HTTP session of an unopened Kaggle client."""
    from kagglehub.clients import build_kaggle_client

    with build_kaggle_client() as client:
        return client.http_client()._session


def wandb_setting(name):
    """A value of the type that a setting of W&B has, as wandb reads a 1."""
    return lambda: getattr(found("wandb.Settings")()(**{name: 1}), name)


LOADER = "hydra._internal.config_loader_impl.ConfigLoaderImpl"
REPOSITORY = "hydra._internal.config_repository.IConfigRepository"
GRAMMAR = "hydra.core.override_parser"
SERVICE = "kagglesdk.models.types.model_api_service"
TENSORBOARD = "tensorboard.compat.proto"
CHECK = "config/check/"
TABLE = [
    Private(
        "hydra-core",
        {"hydra._internal.utils.get_args_parser", "hydra._internal.utils._run_hydra"},
        {f"{CHECK}options.py", "config/hydra_main.py"},
        "hydra.main reads sys.argv alone; ours is checked, completed and then handed on",
        {
            found("hydra._internal.utils.get_args_parser"): "",
            found("hydra._internal.utils._run_hydra"): "args, args_parser, task_function, config_path, config_name, "
            "caller_stack_depth",
        },
    ),
    Private(
        "hydra-core",
        {
            "hydra._internal.core_plugins.file_config_source.FileConfigSource",
            "hydra._internal.sources_registry.SourcesRegistry",
            "hydra.core.plugins.Plugins",
            "hydra.plugins.config_source.ConfigResult",
        },
        {f"{CHECK}text_source.py", "config/plugins.py"},
        "Hydra reads YAML 1.1, where a text such as 2025_11_28 is a number, and registers one reader per scheme; and "
        "it does not find plug-ins of an installation that leads to a checkout",
        {
            found("hydra._internal.core_plugins.file_config_source.FileConfigSource.load_config"): "self, config_path",
            found("hydra._internal.sources_registry.SourcesRegistry.instance"): "args, kwargs",
            found("hydra.core.plugins.Plugins.instance"): "args, kwargs",
            found("hydra.core.plugins.Plugins.register"): "self, clazz",
            found(
                "hydra.plugins.config_source.ConfigResult"
            ): "provider, path, config, header, defaults_list, is_schema_source",
        },
    ),
    Private(
        "hydra-core",
        {"hydra.core.config_store.ConfigStore"},
        {f"{CHECK}saved.py", f"{CHECK}job.py", "config/stated_evaluation.py"},
        "a primary config that lies in no folder of ours, and what plug-ins registered; documented, but not named by "
        "hydra itself",
        {found("hydra.core.config_store.ConfigStore.store"): "self, name, node, group, package, provider"},
    ),
    Private(
        "hydra-core",
        {"hydra.version"},
        {f"{CHECK}composition.py", "config/hydra_main.py"},
        "what hydra.main(version_base=...) sets; neither of the two goes through hydra.main",
        {found("hydra.version.setbase"): "ver"},
    ),
    Private(
        "hydra-core",
        {
            LOADER,
            "._parse_overrides_and_create_caching_repo",
            "._apply_overrides_to_config",
            "._embed_result_config",
            REPOSITORY,
            "hydra._internal.utils.create_config_search_path",
            "hydra.core.config_search_path.SearchPathQuery",
            "hydra.core.object_type.ObjectType",
            "hydra.core.utils.setup_globals",
        },
        {f"{CHECK}composition.py", "sweeps/launch.py", "sweeps/search/run.py"},
        "hydra.compose stops at the first mistake and does not tell which file a value is from",
        {
            found(LOADER): "config_search_path",
            found(f"{LOADER}.load_configuration"): "self, config_name, overrides, run_mode, from_shell, "
            "validate_sweep_overrides",
            found(f"{LOADER}.compute_defaults_list"): "self, config_name, overrides, run_mode",
            found(f"{LOADER}._parse_overrides_and_create_caching_repo"): "self, config_name, overrides",
            found(f"{LOADER}._apply_overrides_to_config"): "overrides, cfg",
            found(f"{LOADER}._embed_result_config"): "ret, package_override",
            found(f"{REPOSITORY}.get_group_options"): "self, group_name, results_filter",
            found(f"{REPOSITORY}.group_exists"): "self, config_path",
            found(f"{REPOSITORY}.config_exists"): "self, config_path",
            found(f"{REPOSITORY}.load_config"): "self, config_path",
            found("hydra._internal.utils.create_config_search_path"): "search_path_dir",
            found("hydra.core.config_search_path.SearchPathQuery"): "provider, path",
            found("hydra.core.object_type.ObjectType.CONFIG"): found("hydra.core.object_type.ObjectType")(),
            found("hydra.core.utils.setup_globals"): "",
        },
    ),
    Private(
        "hydra-core",
        {"hydra._internal.config_loader_impl.get_overrides_dirname"},
        {f"{CHECK}sweep.py"},
        "the folder of each job is recorded before Hydra names it",
        {
            found(
                "hydra._internal.config_loader_impl.get_overrides_dirname"
            ): "overrides, exclude_keys, item_sep, kv_sep",
        },
    ),
    Private(
        "hydra-core",
        {
            f"{GRAMMAR}.overrides_parser.OverridesParser",
            f"{GRAMMAR}.types.IntervalSweep",
            f"{GRAMMAR}.types.Override",
            f"{GRAMMAR}.types.OverrideType",
            f"{GRAMMAR}.types.RangeSweep",
        },
        {
            f"{CHECK}{name}.py"
            for name in ("command_line", "composition", "job", "search_space", "sweep", "sweep_points")
        }
        | {"config/explain/settings.py", "sweeps/search/results.py", "sweeps/search/run.py"},
        "the grammar of overrides is documented, its parser is not",
        {
            found(f"{GRAMMAR}.overrides_parser.OverridesParser.create"): "config_loader",
            found(f"{GRAMMAR}.overrides_parser.OverridesParser.parse_overrides"): "self, overrides",
            found(f"{GRAMMAR}.types.Override"): "type, key_or_group, value_type, _value, package, input_line, "
            "config_loader",
            found(f"{GRAMMAR}.types.Override.value"): "self",
            found(f"{GRAMMAR}.types.Override.is_sweep_override"): "self",
            found(f"{GRAMMAR}.types.OverrideType.FORCE_ADD"): found(f"{GRAMMAR}.types.OverrideType")(),
        },
    ),
    Private(
        "hydra-core",
        {
            "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
            "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        },
        {"config/plugins.py"},
        "names, compared with what a config chose: whether a sweep's jobs share this process, and are a grid",
        {
            found("hydra._internal.core_plugins.basic_launcher.BasicLauncher"): "",
            found("hydra._internal.core_plugins.basic_sweeper.BasicSweeper"): "max_batch_size, params",
        },
    ),
    Private(
        "hydra-core",
        {
            "hydra.core.utils.JobReturn",
            "hydra.core.utils.JobRuntime",
            "hydra.core.utils.JobStatus",
            "hydra.core.utils.configure_log",
            "hydra.core.utils.run_job",
            "hydra.experimental.callback.Callback",
            "._return_value",
        },
        {"sweeps/child.py", "sweeps/launch.py", "sweeps/search/run.py"},
        "what launchers are made of; Hydra's example of one has these names, its interface does not",
        {
            found("hydra.core.utils.run_job"): "task_function, config, job_dir_key, job_subdir_key, hydra_context, "
            "configure_logging",
            found("hydra.core.utils.JobReturn"): "overrides, cfg, hydra_cfg, working_dir, task_name, status, "
            "_return_value",
            found("hydra.core.utils.JobRuntime.instance"): "args, kwargs",
            found("hydra.core.utils.JobStatus.FAILED"): found("hydra.core.utils.JobStatus")(),
            found("hydra.core.utils.configure_log"): "log_config, verbose_config",
            found("hydra.experimental.callback.Callback.on_multirun_end"): "self, config, kwargs",
        },
    ),
    Private(
        "python",
        {"._clear", "._exit", "._run_exitfuncs", "._shutdown"},
        {"sweeps/child.py", "sweeps/server.py"},
        "a forked process that ends as one of its own would; os._exit is documented, multiprocessing uses the others",
        {
            found("atexit._clear"): types.BuiltinFunctionType,
            found("atexit._run_exitfuncs"): types.BuiltinFunctionType,
            found("threading._shutdown"): "",
        },
    ),
    Private(
        "keras",
        {"keras.src.backend.common.global_state", "keras.src.random.seed_generator.GLOBAL_SEED_GENERATOR"},
        {"backend/_jax.py", "models/weights.py"},
        "keras.utils.set_random_seed imports TensorFlow, whatever the backend; the scope of variables without values, "
        "too, is kept there",
        {
            found("keras.src.backend.common.global_state.get_global_attribute"): "name, default, set_to_default",
            found("keras.src.backend.common.global_state.set_global_attribute"): "name, value",
            found("keras.src.random.seed_generator.GLOBAL_SEED_GENERATOR"): str,
        },
    ),
    Private(
        "keras",
        {"._deferred_initialize", "._initialize", "._initializer"},
        {"models/weights.py"},
        "a public variable draws random values before it can be given those of a file",
        {
            lambda: keras.Variable._deferred_initialize: "self",
            lambda: keras.Variable._initialize: "self, value",
            lambda: keras.Variable(0.0)._initializer: type(None),
        },
    ),
    Private(
        "keras",
        {"._tracker"},
        {"lora/enable.py", "models/backbone.py", "models/linear.py"},
        "a built layer takes no new parts otherwise; Keras' own adapters open it in the same way",
        {
            tracker_of_dense("unlock"): "",
            tracker_of_dense("lock"): "msg",
            tracker_of_dense("untrack"): "value",
            tracker_of_dense("replace_tracked_value"): "store_name, old_value, new_value",
        },
    ),
    Private(
        "keras",
        {"._flatten_layers"},
        {"models/stack.py"},
        "a layer, unlike a model, lists its parts nowhere else",
        {lambda: keras.Layer._flatten_layers: "self, include_self, recursive"},
    ),
    Private(
        "keras",
        {"._backend_update_step", "._get_variable_index"},
        {"optimizer/float32.py"},
        "Keras gives one variable's update to override, not that of all, where what they share is computed once",
        {
            lambda: keras.optimizers.Optimizer._backend_update_step: "self, grads, trainable_variables, learning_rate",
            lambda: keras.optimizers.Optimizer._get_variable_index: "self, variable",
            lambda: keras.optimizers.Optimizer._clip_gradients: "self, grads",
            lambda: keras.optimizers.Optimizer._apply_weight_decay: "self, variables",
        },
    ),
    Private(
        "tensorflow",
        {"tensorflow.compiler.tf2xla.ops.gen_xla_ops"},
        {"backend/_tensorflow.py"},
        "tf.raw_ops has no XLA operations",
        {found("tensorflow.compiler.tf2xla.ops.gen_xla_ops.xla_optimization_barrier"): "input, name"},
    ),
    Private(
        "tensorflow-datasets",
        {"tensorflow_datasets.core.download.downloader"},
        {"dataset/tfds.py"},
        "ten retries take minutes without a network, and DownloadConfig cannot say how many",
        {found("tensorflow_datasets.core.download.downloader.MAX_RETRIES"): int},
    ),
    Private(
        "kagglehub",
        {
            "kagglehub.cache",
            "kagglehub.clients.build_kaggle_client",
            "kagglehub.config.CACHE_FOLDER_ENV_VAR_NAME",
            "kagglehub.config.get_cache_folder",
            "kagglehub.handle.parse_model_handle",
        },
        {"preset/kaggle.py", "preset/push_kaggle.py"},
        "model_download has no time limit, does not go on after a cut and does not check what it got",
        {
            found("kagglehub.cache.get_cached_path"): "handle, path",
            found("kagglehub.cache.Cache.mark_as_complete"): "self, handle, path",
            found("kagglehub.cache.Cache.load_from_cache"): "self, handle, path",
            found("kagglehub.clients.build_kaggle_client"): "",
            found("kagglehub.config.CACHE_FOLDER_ENV_VAR_NAME"): str,
            found("kagglehub.config.get_cache_folder"): "",
            found("kagglehub.handle.parse_model_handle"): "handle",
        },
    ),
    Private(
        "kagglehub",
        {"kagglehub.config.get_kaggle_credentials", "kagglehub.exceptions.BackendError"},
        {"preset/push_kaggle.py"},
        "without credentials model_upload asks the server all the same; what is refused has a type of its own",
        {found("kagglehub.config.get_kaggle_credentials"): "", found("kagglehub.exceptions.BackendError"): type},
    ),
    Private(
        "kagglesdk",
        {
            "._session",
            "kagglesdk.kaggle_env",
            f"{SERVICE}.ApiGetModelInstanceRequest",
            f"{SERVICE}.ApiListModelInstanceVersionFilesRequest",
            f"{SERVICE}.ApiDownloadModelInstanceVersionRequest",
        },
        {"preset/kaggle.py", "preset/push_kaggle.py"},
        "the requests that kagglehub makes; its session has no time limits of its own",
        {
            found("kagglesdk.kaggle_env.get_endpoint"): "env",
            found("kagglesdk.kaggle_env.get_env"): "",
            found(f"{SERVICE}.ApiGetModelInstanceRequest"): "",
            found(f"{SERVICE}.ApiListModelInstanceVersionFilesRequest"): "",
            found(f"{SERVICE}.ApiDownloadModelInstanceVersionRequest"): "",
            kaggle_session: found("requests.Session")(),
        },
    ),
    Private(
        "wandb",
        {"x_disable_meta=", "x_disable_machine_info=", "x_transaction_log_flush_interval="},
        {"logger/wandb_session.py"},
        "what starts with x_ may change at any time; without the first, a command line with its secrets is sent",
        {
            wandb_setting("x_disable_meta"): bool,
            wandb_setting("x_disable_machine_info"): bool,
            wandb_setting("x_transaction_log_flush_interval"): float,
        },
    ),
    Private(
        "tensorboard",
        {
            f"{TENSORBOARD}.event_pb2.Event",
            f"{TENSORBOARD}.summary_pb2.Summary",
            f"{TENSORBOARD}.summary_pb2.SummaryMetadata",
            f"{TENSORBOARD}.tensor_pb2.TensorProto",
            f"{TENSORBOARD}.types_pb2.DT_STRING",
            "tensorboard.summary.writer.record_writer.RecordWriter",
        },
        {"logger/tensorboard.py"},
        "its own writer of event files imports TensorFlow where that is installed, and drops what a full disk refuses",
        {
            found("tensorboard.summary.writer.record_writer.RecordWriter.write"): "self, data",
            found(f"{TENSORBOARD}.types_pb2.DT_STRING"): int,
            lambda: found(f"{TENSORBOARD}.event_pb2.Event")()(step=1, wall_time=1.0, file_version="").step: int,
            lambda: found(f"{TENSORBOARD}.summary_pb2.Summary.Value")()(tag="a", simple_value=1.0).tag: str,
        },
    ),
    Private(
        "python",
        {"._actions"},
        {"commands/parser.py"},
        "argparse does not list the options of a parser, among which the nearest name is looked for",
        {lambda: found("argparse.ArgumentParser")()()._actions: list},
    ),
]
