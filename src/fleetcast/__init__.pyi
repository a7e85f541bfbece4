from fleetcast.view.compare import compare as compare
from fleetcast.view.sizing import best_pools as best_pools
from fleetcast.view.sizing import devices_needed as devices_needed
from fleetcast.view.sizing import max_rate as max_rate
from fleetcast.view.sizing import max_users as max_users
from fleetcast.view.sizing import servers_under as servers_under
from fleetcast.view.starts import watch_starts as watch_starts
from fleetcast.view.transforming import transform as transform
from fleetcast.view.verbs import advise as advise
from fleetcast.view.verbs import check as check
from fleetcast.view.verbs import learn as learn
from fleetcast.view.verbs import load as load
from fleetcast.view.verbs import measure as measure
from fleetcast.view.verbs import plan as plan
from fleetcast.view.verbs import prove as prove
from fleetcast.view.verbs import run as run
from fleetcast.view.verbs import simulate as simulate
from fleetcast.view.watched import watch_train as watch_train
from fleetcast.view.whatif import whatif as whatif

__all__: list[str]
__version__: str
