"""The GraphQL schema is DeepSquare's: each type, each field, each type of a field."""

from importlib.resources import files

import pytest
from graphql import build_schema, is_input_object_type

INPUTS = """
EnvVar key:String! value:String!
HTTPData url:String!
S3Data region:String! bucketUrl:String! path:String! accessKeyId:String! secretAccessKey:String! \
endpointUrl:String! deleteSync:Boolean
TransportData http:HTTPData s3:S3Data
JobResources tasks:Int! cpusPerTask:Int! memPerCpu:Int! gpus:Int!
Job resources:JobResources! env:[EnvVar!] enableLogging:Boolean input:TransportData inputMode:Int steps:[Step!]! \
output:TransportData continuousOutputSync:Boolean virtualNetworks:[VirtualNetwork!]
VirtualNetwork name:String! gatewayAddress:String!
Step name:String dependsOn:[String!] if:String steps:[Step!] run:StepRun for:StepFor launch:StepAsyncLaunch \
use:StepUse catch:[Step!] finally:[Step!]
StepUse source:String! args:[EnvVar!] exportEnvAs:String steps:[Step!]
StepRunResources tasks:Int cpusPerTask:Int memPerCpu:Int gpusPerTask:Int
Mount hostDir:String! containerDir:String! options:String!
ContainerRun image:String! mounts:[Mount!] username:String password:String registry:String apptainer:Boolean \
deepsquareHosted:Boolean x11:Boolean mountHome:Boolean readOnlyRootFS:Boolean
WireguardPeer publicKey:String! preSharedKey:String allowedIPs:[String!] endpoint:String persistentKeepalive:Int
Wireguard address:[String!] privateKey:String! peers:[WireguardPeer!]
Bore address:String boreAddress:String port:Int targetPort:Int! secret:String
NetworkInterface wireguard:Wireguard bore:Bore vnet:VNet
VNet name:String! address:String!
StepRun command:String! shell:String resources:StepRunResources container:ContainerRun network:String dns:[String!] \
customNetworkInterfaces:[NetworkInterface!] env:[EnvVar!] mapUid:Int mapGid:Int workDir:String \
disableCpuBinding:Boolean mpi:String
StepFor parallel:Boolean! items:[String!] range:ForRange steps:[Step!]!
ForRange begin:Int! end:Int! increment:Int
StepAsyncLaunch handleName:String signalOnParentStepExit:Int steps:[Step!]!
ModuleInput key:String! description:String! default:String
ModuleOutput key:String! description:String!
Module name:String! description:String! minimumResources:JobResources! inputs:[ModuleInput!] \
outputs:[ModuleOutput!] steps:[Step!]!
"""


@pytest.fixture(scope="module")
def schema():
    return build_schema(files("deepsquare.wire").joinpath("sbatch.graphql").read_text())


def test_inputs(schema):
    described = {
        " ".join([name, *(f"{field}:{value.type}" for field, value in kind.fields.items())])
        for name, kind in schema.type_map.items()
        if is_input_object_type(kind)
    }
    assert described == set(INPUTS.strip().splitlines())


def test_operations(schema):
    described = {
        f"{kind.name}.{name}({', '.join(f'{key}: {argument.type}' for key, argument in field.args.items())}): {field.type}"
        for kind in (schema.query_type, schema.mutation_type)
        for name, field in kind.fields.items()
    }
    assert described == {
        "Query.job(batchLocationHash: String!): String!",
        "Mutation.submit(job: Job!): String!",
        "Mutation.validate(module: Module!): String!",
    }
    assert schema.subscription_type is None
