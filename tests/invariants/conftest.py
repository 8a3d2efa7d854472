from tests.alignment.conftest import cache_dir, cached, pipeline_dir, rated_videos  # noqa: F401  (fixtures)
